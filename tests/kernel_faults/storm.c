/* A signal a millisecond whose handler restarts nothing, and a count of the reads and writes that it ended.
 *
 * Preloaded into a process. The first eight bytes of the file STORM_COUNT hold the count. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <unistd.h>

static int count_file = -1;
static uint64_t interrupted;

static void on_alarm(int signal) { (void)signal; }

static ssize_t counted(ssize_t result) {
    if (result < 0 && errno == EINTR && count_file >= 0) {
        uint64_t count = __atomic_add_fetch(&interrupted, 1, __ATOMIC_SEQ_CST);
        if (pwrite(count_file, &count, sizeof count, 0) < 0) abort();
        errno = EINTR;
    }
    return result;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t recv(int fd, void *buffer, size_t size, int flags) { return counted(REAL(recv)(fd, buffer, size, flags)); }

ssize_t send(int fd, const void *buffer, size_t size, int flags) { return counted(REAL(send)(fd, buffer, size, flags)); }

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("STORM_COUNT");
    if (path) count_file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct sigaction action = {.sa_handler = on_alarm};
    struct itimerval each_millisecond = {{0, 1000}, {0, 1000}};
    if (sigaction(SIGALRM, &action, NULL) || setitimer(ITIMER_REAL, &each_millisecond, NULL)) abort();
}

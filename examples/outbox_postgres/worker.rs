//! A worker process: some lanes over one sender, and a look now and then for rows of workers that are gone.

use std::convert::Infallible;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, select};
use postgres_sync::Client;

use crate::database::Error;
use crate::lane::Lane;
use crate::session;
use crate::settings::Settings;

/// How often to look for rows of workers that are gone.
const LOOK: Duration = Duration::from_secs(2);

/// When a worker ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    Stopped,
    /// For a job that runs now and then.
    Empty,
}

pub fn run(settings: &Settings, until: Until) -> Result<(), Error> {
    let sender = settings.sender()?;
    let stop = stop_on_signal()?;

    let (ended, all_ended) = bounded::<Infallible>(0);
    let settled = thread::scope(|scope| {
        let lanes: Vec<_> = (0..settings.lanes)
            .map(|_| {
                let (lane, ended) = (Lane::new(settings, &sender, &stop, until), ended.clone());
                scope.spawn(move || {
                    let _ended = ended;
                    lane.run()
                })
            })
            .collect();
        drop(ended);

        let mut keeper = None;
        loop {
            if let Err(error) = look_for_abandoned(settings, &mut keeper) {
                eprintln!("worker {}: {error}", std::process::id());
                keeper = None;
            }
            select! {
                recv(stop) -> _ => break,
                recv(all_ended) -> _ => break,
                default(LOOK) => {}
            }
        }
        // Lanes that had nothing to do may have ended before this thread heard of it.
        if is_disconnected(&stop) {
            eprintln!("worker {}: draining", std::process::id());
            // Claims stop by the channel, sends end by themselves, and what still runs after the grace is cut: before its last byte it
            // goes back into the queue, after it it is unknown.
            sender.shutdown(settings.grace);
        }
        lanes
            .into_iter()
            .map(|lane| lane.join().unwrap_or_else(|_| Err("a lane panicked".into())))
            .sum::<Result<u64, _>>()
    });
    println!("worker {}: {} mails settled", std::process::id(), settled?);
    Ok(())
}

/// A channel that is disconnected by Ctrl-C and SIGTERM.
pub fn stop_on_signal() -> Result<Receiver<Infallible>, Error> {
    let (running, stop) = bounded::<Infallible>(0);
    let mut running = Some(running);
    ctrlc::set_handler(move || drop(running.take()))?;
    Ok(stop)
}

/// Whether a worker has to end.
pub fn is_disconnected(stop: &Receiver<Infallible>) -> bool {
    stop.try_recv().is_err_and(|error| error.is_disconnected())
}

fn look_for_abandoned(settings: &Settings, keeper: &mut Option<Client>) -> Result<(), Error> {
    let client = match keeper {
        Some(client) => client,
        None => keeper.insert(settings.connect()?),
    };
    match session::mark_abandoned(client)? {
        0 => {}
        count => eprintln!("{count} mails of workers that are gone are marked as unknown"),
    }
    Ok(())
}

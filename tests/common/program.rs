//! An example as a program to be run.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// A command that runs it; built first, because `cargo test --test …` builds no example.
pub fn example(name: &str) -> Command {
    static BUILT: Mutex<Vec<String>> = Mutex::new(Vec::new());
    // Held while it is built, so that it is built once.
    let mut built = BUILT.lock().unwrap();
    if !built.iter().any(|built| built == name) {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            // Here the tests' dependency on the crate itself has them on already; in the tarball, which loses it, nothing has.
            .args(["build", "--quiet", "--locked", "--all-features", "--example", name, "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        // Cargo describes this package to its tests by these. ring's build script looks at them: it would be built anew.
        for (variable, _) in std::env::vars_os() {
            if variable
                .to_str()
                .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
            {
                cargo.env_remove(variable);
            }
        }
        assert!(cargo.status().unwrap().success(), "{name} does not compile");
        built.push(name.to_owned());
    }
    drop(built);
    let mut command = Command::new(path(name));
    command.stdin(Stdio::null());
    for variable in ["SMTP_URL", "SMTP_FROM", "SMTP_CA_FILE", "NO_COLOR"] {
        command.env_remove(variable);
    }
    command
}

/// Where it is once it has been built.
pub fn path(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().join("examples").join(name)
}

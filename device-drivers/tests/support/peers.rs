//! Programs of other people, as far as they are installed.
#![allow(unreachable_pub, reason = "a module of two rooms")]

use std::io::Write;
use std::process::{Child, Command, Stdio};

/// Python with a package, or a clear word that the test is skipped.
pub fn python_with(package: &str, test: &str) -> Option<String> {
    let has = |python: &str| {
        let mut check = Command::new(python);
        check.args(["-c", &format!("import {package}")]).stdout(Stdio::null()).stderr(Stdio::null());
        check.status().is_ok_and(|s| s.success())
    };
    let found = ["python3", "python"].into_iter().find(|p| has(p)).map(String::from);
    if found.is_none() {
        assert!(
            std::env::var("LIGHTSOUT_PEERS").as_deref() != Ok("require"),
            "{test} needs the python package {package}, and CI must have it"
        );
        // Straight to the terminal: the test runner would swallow a println.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: python package {package} is not installed here");
    }
    found
}

/// Where a script of ours is.
pub fn script(name: &str) -> String {
    format!("{}/tests/peers/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A program that ends with the test.
pub struct Peer(pub Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

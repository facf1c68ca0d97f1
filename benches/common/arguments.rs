//! Words after `--`: `--name value` and flags.

/// What was asked for. `cargo bench` adds a word of its own.
pub(crate) struct Arguments(Vec<String>);

impl Arguments {
    pub(crate) fn of_process() -> Arguments {
        Arguments(std::env::args().skip(1).filter(|a| a != "--bench").collect())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|a| a == name)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().skip_while(|a| *a != name).nth(1).map(String::as_str)
    }

    /// A number; what is no number ends the program with a word about it.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> T {
        match self.text(name) {
            None => default,
            Some(text) => text.parse().unwrap_or_else(|_| refuse(&format!("{name} {text}: expected a number"))),
        }
    }
}

/// Ends the program with a reason.
pub(crate) fn refuse(why: &str) -> ! {
    eprintln!("{why}");
    std::process::exit(2)
}

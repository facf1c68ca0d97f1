//! What is wrong with a configuration: which file, which line, what was found, what was expected, what to do.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use device_drivers::files;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What helps where nothing better is known.
const LOOK_AT_PATH: &str = "check the path and its permissions";
/// Problems that are told one by one; whoever mends these sees the others with the next look.
const TOLD_MAX: usize = 100;

/// A file that was read.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub text: Arc<str>,
}

/// The files a configuration consists of: read from the disk, and kept; or, later, read again as they were.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// What was read, by path.
    texts: BTreeMap<PathBuf, Arc<str>>,
    /// The disk is not asked.
    pub(super) is_kept: bool,
}

impl Files {
    /// The same files, to be read again as they are here.
    pub fn kept(&self) -> Files {
        Files { texts: self.texts.clone(), is_kept: true }
    }

    /// As text, for a disk.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let texts: BTreeMap<&Path, &str> = self.texts.iter().map(|(path, text)| (path.as_path(), &**text)).collect();
        serde_json::to_vec(&texts)
    }

    /// From such a text, to be read as they were.
    pub fn from_json(text: &[u8]) -> serde_json::Result<Files> {
        let texts: BTreeMap<PathBuf, String> = serde_json::from_slice(text)?;
        let texts = texts.into_iter().map(|(path, text)| (path, text.into())).collect();
        Ok(Files { texts, is_kept: true })
    }

    /// Which files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.texts.keys().map(PathBuf::as_path)
    }

    /// Reads one.
    pub fn read(&mut self, path: &Path) -> Result<Source, Report> {
        if let Some(text) = self.texts.get(path).filter(|_| self.is_kept) {
            return Ok(Source { path: path.into(), text: text.clone() });
        }
        let source = Source::read(path)?;
        self.texts.insert(path.into(), source.text.clone());
        Ok(source)
    }
}

impl Source {
    /// Reads a file.
    fn read(path: &Path) -> Result<Source, Report> {
        let bytes = files::read(path, files::CONFIGURATION_MAX).map_err(|e| Report::unreadable(path, &e))?;
        match std::str::from_utf8(&bytes) {
            // Spreadsheets and some editors put a byte order mark in front.
            Ok(text) => Ok(Source { path: path.into(), text: text.trim_start_matches('\u{feff}').into() }),
            Err(e) => Err(Report::of_other_letters(path, &bytes, e.valid_up_to())),
        }
    }

    /// The lines that a span touches, and where the first of them begins.
    fn lines(&self, span: &Range<usize>) -> (usize, &str) {
        let before = self.text.get(..span.start).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |n| n + 1);
        let behind = self.text.get(span.end.max(span.start)..).and_then(|t| t.find('\n'));
        let end = behind.map_or(self.text.len(), |n| span.end.max(span.start) + n + 1);
        (start, self.text.get(start..end).unwrap_or_default())
    }

    /// Another file that is named here, and cannot be read.
    pub(super) fn unread(&self, span: Range<usize>, title: &str, why: &Report, usual: &str) -> Problem {
        let first = why.0.first();
        let (label, help) = first.map_or_else(Default::default, |p| (p.title.clone(), p.help.clone()));
        let help = help.filter(|help| help != LOOK_AT_PATH);
        self.problem(span, title, label).help(help.unwrap_or_else(|| usual.into()))
    }

    /// A problem at a place in this file.
    pub fn problem(&self, span: Range<usize>, title: impl Into<String>, label: impl Into<String>) -> Problem {
        Problem { source: self.clone(), span: Some(span), title: title.into(), label: label.into(), help: None }
    }
}

/// One problem.
#[derive(Clone, Debug)]
pub struct Problem {
    source: Source,
    span: Option<Range<usize>>,
    title: String,
    label: String,
    help: Option<String>,
}

impl Problem {
    /// Adds what to do.
    pub fn help(mut self, text: impl Into<String>) -> Problem {
        self.help = Some(text.into());
        self
    }

    fn render(&self, renderer: &Renderer) -> String {
        let path = self.source.path.display().to_string();
        let mut report: Vec<Group<'_>> = Vec::new();
        let title = Level::ERROR.primary_title(&self.title);
        report.push(match &self.span {
            Some(span) => {
                // No more of the file than is shown: of a long one with many problems the rest would be gone through for each.
                let (start, text) = self.source.lines(span);
                let first = self.source.text.get(..start).map_or(1, |before| before.matches('\n').count() + 1);
                // Behind the last line there is nothing to show: the library knows how to say that.
                let (start, first, text) =
                    if text.is_empty() { (0, 1, &*self.source.text) } else { (start, first, text) };
                let here = span.start.saturating_sub(start)..span.end.saturating_sub(start);
                let note = AnnotationKind::Primary.span(here).label(self.label.as_str());
                title.element(Snippet::source(text).line_start(first).path(&path).annotation(note))
            }
            None => Group::with_title(title),
        });
        if let Some(help) = &self.help {
            report.push(Group::with_title(Level::HELP.secondary_title(help)));
        }
        renderer.render(&report)
    }
}

/// Everything that is wrong, in the order of the file.
#[derive(Clone, Debug)]
pub struct Report(pub Vec<Problem>);

impl Report {
    /// A file or a folder that cannot be read.
    pub(super) fn unreadable(path: &Path, e: &std::io::Error) -> Report {
        let help = match e.kind() {
            _ if path.components().any(|part| part.as_os_str() == "~") => {
                "`~` means no folder here: write the path out, as in \"/home/ada/..\""
            }
            std::io::ErrorKind::FileTooLarge => {
                "a configuration is read up to this size: share it out among several files"
            }
            std::io::ErrorKind::InvalidInput | std::io::ErrorKind::IsADirectory => "name a file",
            _ => LOOK_AT_PATH,
        };
        Report::of_file(path, format!("cannot read {}: {e}", path.display()), help)
    }

    /// A file in the letters of another time: what cannot be read is in the row behind so many bytes.
    fn of_other_letters(path: &Path, bytes: &[u8], at: usize) -> Report {
        let row = bytes.iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
        let title = format!("cannot read {}: row {row} is not written in UTF-8", path.display());
        Report::of_file(path, title, "save it as UTF-8; spreadsheets call that \"CSV UTF-8\"")
    }

    fn of_file(path: &Path, title: String, help: &str) -> Report {
        let source = Source { path: path.into(), text: "".into() };
        Report(vec![Problem { source, span: None, title, label: String::new(), help: Some(help.into()) }])
    }

    /// The report as a terminal shows it, with or without colour.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut text: String = self.0.iter().take(TOLD_MAX).map(|p| p.render(&renderer) + "\n\n").collect();
        if self.0.len() > TOLD_MAX {
            text += &format!("and {} more\n\n", self.0.len() - TOLD_MAX);
        }
        let count = self.0.len();
        text.push_str(&match count {
            1 => "1 problem; nothing was started".to_string(),
            n => format!("{n} problems; nothing was started"),
        });
        text
    }
}

/// A problem for programs.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ProblemView {
    /// Which file.
    pub file: String,
    /// Which line, from 1; missing when it is about the whole file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Which column, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// What is wrong.
    pub title: String,
    /// What was found, what was expected.
    pub label: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Report {
    /// Everything that is wrong, for programs.
    pub fn problems(&self) -> Vec<ProblemView> {
        let view = |p: &Problem| {
            let before = p.span.as_ref().and_then(|s| p.source.text.get(..s.start));
            let start = |text: &str| text.rfind('\n').map_or(0, |n| n + 1);
            ProblemView {
                file: p.source.path.display().to_string(),
                line: before.map(|text| text.matches('\n').count() + 1),
                column: before.map(|text| text.get(start(text)..).map_or(1, |l| l.chars().count() + 1)),
                title: p.title.clone(),
                label: p.label.clone(),
                help: p.help.clone(),
            }
        };
        self.0.iter().take(TOLD_MAX).map(view).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

/// Parses a file; a TOML or type error becomes a problem with a suggestion.
pub fn parse<T: DeserializeOwned>(source: &Source) -> Result<T, Report> {
    toml::from_str(&source.text).map_err(|e| {
        let message = e.message().to_string();
        let span = e.span().unwrap_or(0..0);
        let (title, label, help) = explain(&message, Place { source, span: span.clone() });
        let problem = source.problem(span, title, label);
        Report(vec![match help {
            Some(help) => problem.help(help),
            None => problem,
        }])
    })
}

/// Where a parser has stumbled.
struct Place<'a> {
    source: &'a Source,
    span: Range<usize>,
}

impl Place<'_> {
    /// The word there: what stands behind a `=`, up to a blank.
    fn word(&self) -> &str {
        let rest = self.source.text.get(self.span.start..).unwrap_or_default();
        rest.split(|c: char| c.is_whitespace() || [',', ']', '}', '#'].contains(&c)).next().unwrap_or_default()
    }

    /// The name of a table whose header is there: `tag` of `[tag]`.
    fn table(&self) -> Option<&str> {
        let line = self.source.lines(&self.span).1.lines().next()?.trim();
        let name = line.strip_prefix('[')?.split(']').next()?.trim();
        Some(name).filter(|name| !name.starts_with('['))
    }
}

/// What to write instead of a value that is neither a text nor a number.
fn bare(word: &str) -> String {
    match word.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" => "a switch is true or false: write true".into(),
        "no" | "off" | "false" => "a switch is true or false: write false".into(),
        _ if word.starts_with(['\u{201c}', '\u{201d}', '\u{201e}', '\u{2018}', '\u{2019}', '\u{ab}', '\u{bb}']) => {
            "use plain quotation marks: \"".into()
        }
        _ => "a text needs quotation marks, as in \"press-1\"; a switch is true or false".into(),
    }
}

/// Turns a parser's message into a title, a label and a suggestion.
fn explain(message: &str, at: Place<'_>) -> (String, String, Option<String>) {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if let Some((found, expected)) = quoted.split_first()
        && message.starts_with("unknown field")
    {
        let mut expected = expected.to_vec();
        let near = closest(found, &expected);
        expected.sort_unstable();
        let help = match near {
            Some(near) => format!("did you mean `{near}`? The keys here are: {}", expected.join(", ")),
            None => format!("the keys here are: {}", expected.join(", ")),
        };
        return (format!("there is no key `{found}` here"), "unknown key".into(), Some(help));
    }
    if let Some(field) = quoted.first()
        && message.starts_with("missing field")
    {
        if *field == "gateway" {
            let help = "add [gateway] with name = \"..\", area = \"..\" and line = \"..\"; configs/demo/agent.toml shows one of each";
            return (
                "the table [gateway] is missing".into(),
                "nothing says which gateway this is".into(),
                Some(help.into()),
            );
        }
        return (
            format!("the key `{field}` is missing"),
            "in this table".into(),
            Some(format!("add `{field} = ..` to this table; configs/demo/agent.toml shows one of each")),
        );
    }
    if let Some((found, expected)) = message.strip_prefix("invalid type: ").and_then(|m| m.split_once(", expected ")) {
        let expected = match expected {
            "a string" => "a text in quotation marks",
            "u8" => "a whole number from 0 to 255",
            "u16" => "a whole number from 0 to 65535",
            "f64" => "a number",
            "a sequence" => "a list of tables, as in [[line]]",
            other => other,
        };
        if let (Some(table), "a list of tables, as in [[line]]") = (at.table(), expected) {
            let help = format!("there may be several of it, so it has double brackets: [[{table}]]");
            return ("this table has single brackets".into(), format!("found [{table}]"), Some(help));
        }
        return ("this value has the wrong type".into(), format!("found {found}, expected {expected}"), None);
    }
    if let Some((found, expected)) = message.strip_prefix("invalid value: ").and_then(|m| m.split_once(", expected ")) {
        let expected = match expected {
            "u8" => "0 to 255",
            "u16" => "0 to 65535",
            other => other,
        };
        return ("this value is out of range".into(), format!("found {found}, expected {expected}"), None);
    }
    let first = message.lines().next().unwrap_or(message);
    let help = [
        (
            "duplicate key",
            "it stands twice; tables that may come several times have double brackets: [[line]], [[line.device]], [[tag]]",
        ),
        ("key with no value", "a value is given with `=`, as in timeout = \"1s\""),
        ("invalid float", "a text needs quotation marks, as in \"127.0.0.1:1883\""),
        ("invalid basic string", "the closing quotation mark is missing, or a \\ stands in the text: write / in paths"),
    ];
    let known = help.iter().find(|(found, _)| first.contains(found)).map(|(_, help)| (*help).to_string());
    let help = known.or_else(|| first.contains("literal string").then(|| bare(at.word())));
    ("this line cannot be understood".into(), first.to_string(), help)
}

/// The most similar of several names, if one is similar at all.
pub fn closest<'a>(found: &str, names: &[&'a str]) -> Option<&'a str> {
    names
        .iter()
        .map(|name| (strsim::jaro_winkler(found, name), *name))
        .filter(|(similarity, _)| *similarity > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

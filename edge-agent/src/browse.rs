//! `edge-agent browse ENDPOINT`: what a server has, as a tag table that can be loaded.
//!
//! ```text
//!   Objects/Line 1/Motor/Temp. (°C)   nsu=urn:maker:plc;s=Motor.Temp   Double
//!        └── matches --match "*/Motor/*"?
//!               ├── [[tag]]  name = "Line_1.Motor.Temp._(°C)"  node = "nsu=urn:maker:plc;s=Motor.Temp"  # Double
//!               └── # [[tag]] ..    # cannot be read: a structure
//! ```

use crate::config::{DESCRIPTION_MAX, UNIT_MAX};
use clap::Args;
use device_drivers::opcua::browse::{Found, Walk, browse};
use device_drivers::opcua::{Identity, OpcUaSpec, Policy, Security, Vendor};
use std::collections::HashSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;
use wildmatch::WildMatch;

/// Time for connecting, and for each request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What to browse.
#[derive(Debug, Args)]
pub struct Options {
    /// Endpoint of the server, e.g. opc.tcp://192.168.1.20:4840/
    pub endpoint: String,
    /// Security, e.g. Basic256Sha256/SignAndEncrypt, or none
    #[arg(long, default_value_t = Security::encrypted(Policy::Basic256Sha256), value_parser = str::parse::<Security>)]
    pub security: Security,
    /// The server's certificate need not name the host
    #[arg(long)]
    pub any_host: bool,
    /// User name
    #[arg(long, requires = "password_file")]
    pub user: Option<String>,
    /// File with the user's password
    #[arg(long, requires = "user")]
    pub password_file: Option<PathBuf>,
    /// Only variables whose path (as Line/Motor/Speed) or node matches; `*` stands for any text, `?` for one character
    #[arg(long = "match", value_name = "GLOB")]
    pub globs: Vec<String>,
    /// Folder with keys and certificates; `edge-agent pki --dir` works on the same
    #[arg(long, default_value = crate::pki::DEFAULT_DIR)]
    pub pki_dir: PathBuf,
    /// Configuration of the gateway whose folder is used, e.g. configs/demo/agent.toml; what else is wrong in it does not matter
    #[arg(long, conflicts_with = "pki_dir")]
    pub config: Option<PathBuf>,
    /// So many variables at most
    #[arg(long, default_value_t = 10_000)]
    pub limit: usize,
    /// Where the table goes; without it, to the terminal
    #[arg(short, long)]
    pub output: Option<PathBuf>,
    /// Write over a table that is there
    #[arg(long, requires = "output")]
    pub force: bool,
}

/// Browses, and writes the table. What was done is said in a line.
pub async fn run(options: &Options) -> Result<String, String> {
    let identity = match (&options.user, &options.password_file) {
        (Some(name), Some(file)) => {
            let password = device_drivers::files::read_secret(file).map_err(|e| format!("{}: {e}", file.display()))?;
            Identity::User { name: name.clone(), password }
        }
        _ => Identity::Anonymous,
    };
    if let Some(path) = options.output.as_ref().filter(|path| !options.force && path.exists()) {
        let path = path.display();
        return Err(format!("{path} is there already, and may hold what somebody has set: another name, or --force"));
    }
    let pki_dir = match &options.config {
        Some(file) => crate::config::state_dir_of(file)
            .map(|dir| dir.join("pki"))
            .ok_or_else(|| format!("{} names no state_dir: add one to its [gateway]", file.display()))?,
        None => options.pki_dir.clone(),
    };
    let spec = OpcUaSpec {
        endpoint: options.endpoint.clone(),
        timeout: TIMEOUT,
        publishing: Duration::from_secs(1),
        security: Security { check_host: !options.any_host, ..options.security },
        identity,
        vendor: Vendor::Generic,
        pki_dir,
        points: Vec::new(),
        commands: Vec::new(),
    };
    let globs: Vec<WildMatch> = options.globs.iter().map(|g| WildMatch::new(g)).collect();
    let bar = crate::cli::progress(None, "{spinner} {pos} variables looked at, {elapsed}");
    let wanted = |path: &str, node: &str| {
        bar.inc(1);
        globs.is_empty() || globs.iter().any(|g| g.matches(path) || g.matches(node))
    };
    let walk = browse(&spec, options.limit, wanted).await.map_err(|e| e.to_string())?;
    if walk.found.is_empty() && !globs.is_empty() {
        return Err(format!("none of the variables of {} nodes matches; nothing is written", walk.nodes));
    }
    let text = table(&options.endpoint, &walk);
    let mut said = format!("{} variables, of {} nodes looked at", walk.found.len(), walk.nodes);
    let unreadable = walk.found.iter().filter(|f| f.unreadable.is_some()).count();
    if unreadable > 0 {
        said += &format!("; {unreadable} of them cannot be read and are commented out, each with its reason");
    }
    if let Some(why) = &walk.cut {
        said += &format!("; not all: {why}");
    }
    match &options.output {
        Some(path) => {
            std::fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
            Ok(format!("{said}, written to {}", path.display()))
        }
        None => {
            print!("{text}");
            Ok(said)
        }
    }
}

/// The table, as a profile.
pub fn table(endpoint: &str, walk: &Walk) -> String {
    let mut text = format!(
        "# Made by edge-agent browse {}: a profile, for `profile = ..` of a [[line.device]].\n",
        comment(endpoint)
    );
    if let Some(why) = &walk.cut {
        let _ = writeln!(text, "# Not all: {}", comment(why)); // into a String: cannot fail
    }
    let mut taken = HashSet::new();
    for found in &walk.found {
        let name = unique(name(found), &mut taken);
        let (name, node, kind) = (quoted(&name), quoted(&found.node), comment(&found.data_type));
        let _ = match &found.unreadable {
            None => {
                let meaning = meaning(found);
                write!(text, "\n[[tag]]                 # {kind}\nname = {name}\nnode = {node}\n{meaning}")
            }
            Some(why) => {
                let why = comment(why);
                write!(
                    text,
                    "\n# [[tag]]               # {kind}; cannot be read: {why}\n# name = {name}\n# node = {node}\n"
                )
            }
        };
    }
    text
}

/// What the server says a tag is to people, as far as a profile takes it.
fn meaning(found: &Found) -> String {
    let mut text = String::new();
    let words = [("unit", &found.unit, UNIT_MAX), ("description", &found.description, DESCRIPTION_MAX)];
    for (key, said, most) in words {
        let said: String = said.as_deref().map(comment).unwrap_or_default().trim().chars().take(most).collect();
        if !said.is_empty() {
            let _ = writeln!(text, "{key} = {}", quoted(said.trim()));
        }
    }
    if let Some((low, high)) = found.range {
        // TOML tells 4 from 4.0, and these are numbers with a fraction.
        let _ = writeln!(text, "low = {low:?}\nhigh = {high:?}");
    }
    text
}

/// The path as one level of a topic.
fn name(found: &Found) -> String {
    let clean = |c: char| if c.is_whitespace() || c.is_control() || "/+#\"\\".contains(c) { '_' } else { c };
    let name: String = found.path.join(".").chars().map(clean).collect();
    match name.strip_prefix("load.") {
        _ if name.is_empty() => "tag".into(),
        Some(rest) => format!("load-{rest}"), // names of load positions begin with `load.`
        None => name,
    }
}

fn unique(name: String, taken: &mut HashSet<String>) -> String {
    let numbered = (2u64..).map(|n| format!("{name}-{n}"));
    let free = std::iter::once(name.clone()).chain(numbered).find(|n| !taken.contains(n)).unwrap_or(name);
    taken.insert(free.clone());
    free
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &[&str], node: &str) -> Found {
        Found {
            path: path.iter().map(ToString::to_string).collect(),
            node: node.into(),
            data_type: "Double\n[[evil]]".into(),
            ..Found::default()
        }
    }

    #[test]
    fn whatever_a_server_calls_its_nodes_the_table_can_be_read_and_its_names_are_each_others_own() {
        let hostile = [
            found(&["Line 1", "a/b", "T+#"], "nsu=urn:x;s=a\"b\\c\u{7}\n"),
            found(&["Line_1", "a_b", "T__"], "nsu=urn:x;s=2"),
            found(&["load", "x"], "nsu=urn:x;s=3"),
            found(&[], "nsu=urn:x;s=4"),
            found(&["Größe \"°C\""], "nsu=urn:x;s=5"),
        ];
        let text =
            table("opc.tcp://x\n[[tag]]", &Walk { found: hostile.to_vec(), nodes: 5, cut: Some("many\n".into()) });
        let table: toml::Table = toml::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let tags = table["tag"].as_array().unwrap();
        let names: Vec<_> = tags.iter().map(|t| t["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["Line_1.a_b.T__", "Line_1.a_b.T__-2", "load-x", "tag", "Größe__°C_"]);
        let nodes: Vec<_> = tags.iter().map(|t| t["node"].as_str().unwrap()).collect();
        assert_eq!(nodes, hostile.each_ref().map(|f| f.node.as_str()));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_commented_out_with_its_reason() {
        let (mut good, mut bad) = (found(&["A"], "nsu=urn:x;s=A"), found(&["B"], "nsu=urn:x;s=B\n[[evil]]"));
        (good.unit, good.description) = (Some("°C\u{7}".into()), Some("\n[[evil]] \"oil\"".into()));
        good.range = Some((-40.0, 1e300));
        bad.unreadable = Some("a structure\n[[evil]]".into());
        let text = table("opc.tcp://x", &Walk { found: vec![good, bad], nodes: 2, cut: None });
        let table: toml::Table = toml::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!((table.len(), table["tag"].as_array().unwrap().len()), (1, 1), "{text}");
        let tag = &table["tag"][0];
        assert_eq!((tag["unit"].as_str(), tag["description"].as_str()), (Some("°C"), Some("[[evil]] \"oil\"")));
        assert_eq!((tag["low"].as_float(), tag["high"].as_float()), (Some(-40.0), Some(1e300)));
        assert!(text.contains("cannot be read: a structure [[evil]]\n# name = \"B\"\n# node = "), "{text}");
    }
}

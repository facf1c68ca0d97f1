//! The files that a configuration names (keys, passwords, certificates, profiles): who else could read them, change them, or put others in
//! their place.
//!
//! The keys are looked for in the files as they are, by name: a table that is new, as `[http.tls]` once was, is looked at like the others. A test
//! holds [`KEYS`] against the schema.

use super::doctor::{Finding, row};
use crate::config::Plan;
use crate::config::plan::Secret;
use device_drivers::files;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Keys that name a file, and whether it is a secret.
const KEYS: [(&str, bool); 6] = [
    ("password_file", true),
    ("user_key", true),
    ("key", true),
    ("ca", false),
    ("certificate", false),
    ("user_certificate", false),
];
/// Others may write here, but not to what is another's: /tmp.
const STICKY: u32 = 0o1000;

/// Files by path, and whether each is a secret.
type Named = BTreeMap<PathBuf, bool>;

/// What others could do with the files that are named.
pub(super) fn findings(plan: &Plan) -> Vec<Finding> {
    let mut named = Named::new();
    for file in plan.files.paths() {
        named.insert(file.to_path_buf(), false);
        let text = files::read_text(file, files::CONFIGURATION_MAX).unwrap_or_default();
        if let Ok(table) = text.parse::<toml::Table>() {
            collect(&table, file.parent().unwrap_or(Path::new("")), &mut named);
        }
    }
    let login = plan.mqtt.as_ref().and_then(|m| m.login.as_ref());
    if let Some(path) = login.and_then(|l| l.secret.as_ref()).and_then(Secret::path) {
        named.insert(path, true);
    }
    let trusted = [Some(0), Some(rustix::process::geteuid().as_raw()), owner(&plan.state_dir)];
    let doubts = |secret: bool| {
        let of = named.iter().filter(move |(_, is_secret)| **is_secret == secret);
        let doubts = of.filter_map(|(path, _)| doubt(path, secret, &trusted));
        doubts.collect::<Vec<String>>()
    };
    let count = |secret: bool| named.values().filter(|s| **s == secret).count();
    let verdict = |what, secret: bool, fine: &str, mend: &str| {
        let doubts = doubts(secret);
        let found = if doubts.is_empty() { format!("{} {fine}", count(secret)) } else { doubts.join("; ") };
        row(what, doubts.is_empty(), found, mend)
    };
    vec![
        verdict(
            "named secrets",
            true,
            "keys and passwords that the configuration names are the gateway's alone",
            "chmod 600, and chown to the gateway's user; or LoadCredential= in the unit and password_credential here",
        ),
        verdict(
            "named files",
            false,
            "files can be changed by nobody else",
            "chmod go-w, and chown root: who changes them says what the gateway does, and whom it trusts",
        ),
    ]
}

fn collect(table: &toml::Table, beside: &Path, named: &mut Named) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => collect(inner, beside, named),
            toml::Value::Array(all) => all.iter().filter_map(|v| v.as_table()).for_each(|t| collect(t, beside, named)),
            toml::Value::String(name) => {
                if let Some((_, secret)) = KEYS.iter().find(|(k, _)| k == key) {
                    *named.entry(beside.join(name)).or_default() |= secret;
                }
            }
            _ => {}
        }
    }
}

fn owner(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|m| m.uid())
}

/// What is wrong with a file's owner, its mode, or its folder's.
fn doubt(path: &Path, secret: bool, trusted: &[Option<u32>]) -> Option<String> {
    let shown = path.display();
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) => return Some(format!("{shown}: {e}")),
    };
    let (mode, bits) = (meta.mode() & 0o777, if secret { 0o077 } else { 0o022 });
    if mode & bits != 0 {
        return Some(format!("{shown}: mode {mode:o}"));
    }
    if !trusted.contains(&Some(meta.uid())) {
        return Some(format!("{shown}: owner {}", meta.uid()));
    }
    let folder =
        std::fs::metadata(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))).ok()?;
    let open = folder.mode() & 0o022 != 0 && folder.mode() & STICKY == 0;
    open.then(|| {
        format!("{shown}: others may put another in its place, its folder has mode {:o}", folder.mode() & 0o777)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of all keys of the configuration that look as if they named a key, a certificate or a password.
    fn suspects(schema: &serde_json::Value, found: &mut Vec<String>) {
        match schema {
            serde_json::Value::Object(all) => {
                for (name, inner) in all {
                    if let ("properties", Some(properties)) = (name.as_str(), inner.as_object()) {
                        let telling = |n: &&String| {
                            n.ends_with("_file") || n.ends_with("key") || n.contains("certificate") || *n == "ca"
                        };
                        found.extend(properties.keys().filter(telling).cloned());
                    }
                    suspects(inner, found);
                }
            }
            serde_json::Value::Array(all) => all.iter().for_each(|inner| suspects(inner, found)),
            _ => {}
        }
    }

    #[test]
    fn every_key_of_the_schema_that_names_such_a_file_is_known() {
        let mut found = Vec::new();
        suspects(&serde_json::to_value(crate::config::schema()).unwrap(), &mut found);
        assert!(found.len() >= KEYS.len(), "{found:?}");
        for name in found {
            assert!(
                KEYS.iter().any(|(key, _)| *key == name),
                "`{name}` is a key of the configuration: is it a secret?"
            );
        }
    }
}

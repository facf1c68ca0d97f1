//! The arrows of the house, kept by package name: who may depend on whom, and who never.

use std::process::Command;

/// The packages `package` depends on, directly or not, for use and build, without what only tests and examples need.
fn dependencies(package: &str) -> Vec<String> {
    let args =
        ["tree", "--offline", "--locked", "-p", package, "-e", "normal,build", "--prefix", "none", "--format", "{p}"];
    let output = Command::new(env!("CARGO"))
        .args(args)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo tree runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut names: Vec<String> = text.lines().skip(1).filter_map(|l| l.split(' ').next()).map(String::from).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn every_arrow_points_the_right_way() {
    let never = [
        ("control-core", vec!["tokio", "serde", "device-drivers", "plc-sim", "edge-agent", "libc", "tracing"]),
        ("floor-plan", vec!["tokio", "device-drivers", "plc-sim", "edge-agent", "libc"]),
        ("device-drivers", vec!["edge-agent", "plc-sim", "axum", "prometheus", "rumqttd"]),
        ("plc-sim", vec!["edge-agent", "rumqttc", "rumqttd", "prometheus", "axum"]),
        ("edge-agent", vec!["plc-sim", "rumqttd", "async-opcua-server", "openssl-sys", "aws-lc-sys", "native-tls"]),
    ];
    for (package, forbidden) in never {
        let found = dependencies(package);
        assert!(!found.is_empty(), "cargo tree shows nothing for {package}");
        for name in forbidden {
            assert!(!found.iter().any(|f| f == name), "{package} must never depend on {name}");
        }
    }
}

#[test]
fn the_core_depends_on_heapless_and_what_heapless_brings_and_nothing_else() {
    let found = dependencies("control-core");
    let allowed = ["heapless", "hash32", "byteorder", "stable_deref_trait"];
    for name in &found {
        assert!(allowed.contains(&name.as_str()), "control-core depends on {name}");
    }
}

#[test]
fn the_core_is_no_std_and_has_no_unsafe_code() {
    let root = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/control-core/src/lib.rs")).unwrap();
    assert!(root.contains("#![no_std]") && root.contains("#![forbid(unsafe_code)]"));
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/control-core/src"))];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.file_name().is_some_and(|name| name == "tests.rs") {
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            let (code, _) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
            assert!(!code.contains("extern crate"), "{}: the core brings in neither std nor alloc", path.display());
        }
    }
    assert!(files > 20, "{files} files were looked at");
}

/// Whoever connects in another way waits for the first address of a name alone, and for as long as the kernel likes.
#[test]
fn every_connection_goes_the_way_that_tries_all_addresses_of_a_name() {
    let house = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders = vec![house.join("edge-agent/src"), house.join("device-drivers/src")];
    let mut ways = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let (code, _) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
                if code.contains("TcpStream::connect") || code.contains("TcpSocket") {
                    ways.push(name);
                }
            }
        }
    }
    assert_eq!(ways, ["dial.rs"], "all others dial");
}

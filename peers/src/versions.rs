//! The versions that are measured, as the lock file has them.

const LOCK: &str = include_str!("../../Cargo.lock");

/// The version of a package.
pub(crate) fn of(package: &str) -> &'static str {
    let named = format!("name = \"{package}\"");
    let mut lines = LOCK.lines().skip_while(|line| *line != named).skip(1);
    lines.next().and_then(|line| line.strip_prefix("version = ")).map_or("?", |version| version.trim_matches('"'))
}

//! A configuration file that is followed while it is replaced, rewritten, broken and taken away. The files are real, the
//! looks are made one by one, and the clock is paused.

mod support;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use fusebox::{Command, ConfigFile, Configs, Event, Registry, Reload, ReloadError};
use futures::FutureExt;
use support::{advance, drain, ms, secs};
use tokio::time::Instant;

type Parse = fn(&str) -> Result<Configs, toml::de::Error>;
type Outcome = Option<Result<Reload, ReloadError>>;

/// A folder of its own, a file in it, and a command that the file is for.
struct Case {
    folder: PathBuf,
    registry: Registry,
    command: Command,
    file: ConfigFile<Parse>,
}

impl Case {
    /// `name` is the test's own.
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("config_file").join(name);
        let _from_another_run = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        let registry = Registry::new();
        let command = Command::builder("followed").registry(&registry).build().expect("valid");
        let file = ConfigFile::new(folder.join("fusebox.toml"), (|text| toml::from_str(text)) as Parse);
        Self { folder, registry, command, file }
    }

    fn write(&self, text: &str) {
        fs::write(self.folder.join("fusebox.toml"), text).expect("it can be written");
    }

    fn look(&mut self) -> Outcome {
        self.file.look(&self.registry)
    }

    fn limit(&self) -> Option<usize> {
        self.command.snapshot().limit()
    }

    /// Two looks: what has changed is not taken by the first, and is by the second.
    fn settles(&mut self) -> Result<Reload, ReloadError> {
        let before = self.command.snapshot().config().clone();
        assert!(self.look().is_none(), "it may be half-written");
        assert_eq!(self.command.snapshot().config(), &before);
        self.look().expect("two looks have found the same")
    }
}

fn limit(limit: usize) -> String {
    format!("default.max_concurrent = {limit}\n")
}

/// The cause of an error, in its own words.
fn cause(outcome: Result<Reload, ReloadError>) -> String {
    outcome.expect_err("it is not good").source().expect("a cause").to_string()
}

#[test]
fn a_file_is_loaded_at_once_and_a_change_with_the_second_look() {
    let mut case = Case::new("loaded");
    case.write(&limit(2));
    assert_eq!(case.file.load(&case.registry).expect("a good file").changed.len(), 1);
    assert_eq!(case.limit(), Some(2));
    assert!(case.look().is_none() && case.look().is_none(), "nothing is new");

    case.write(&limit(3));
    assert_eq!(case.settles().expect("a good file").changed[0].command, "followed");
    assert_eq!(case.limit(), Some(3));
    assert!(case.look().is_none(), "it was told once");
}

#[test]
fn an_atomic_rename_is_seen() {
    let mut case = Case::new("renamed");
    case.write(&limit(2));
    case.file.load(&case.registry).expect("a good file");
    for next in 3..6 {
        let fresh = case.folder.join("fusebox.toml.new");
        fs::write(&fresh, limit(next)).expect("it can be written");
        fs::rename(&fresh, case.folder.join("fusebox.toml")).expect("it can be renamed");
        case.settles().expect("a good file");
        assert_eq!(case.limit(), Some(next));
    }
}

/// As kubelet does: the file is a link into `..data`, which is a link to a folder with a time in its name, and is
/// replaced by a rename. The path that is followed never changes, nor does the link that it names.
#[cfg(unix)]
#[test]
fn a_swap_of_the_link_under_a_config_map_is_seen() {
    use std::os::unix::fs::symlink;

    let mut case = Case::new("swapped");
    let publish = |case: &Case, version: &str, text: &str| {
        let folder = case.folder.join(version);
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("fusebox.toml"), text).expect("it can be written");
        symlink(version, case.folder.join("..data_tmp")).expect("a link");
        fs::rename(case.folder.join("..data_tmp"), case.folder.join("..data")).expect("it can be renamed");
    };
    publish(&case, "..2026_01_01_00_00_00.1", &limit(2));
    symlink("..data/fusebox.toml", case.folder.join("fusebox.toml")).expect("a link");
    case.file.load(&case.registry).expect("a good file");
    assert_eq!(case.limit(), Some(2));

    publish(&case, "..2026_01_01_00_00_00.2", &limit(3));
    fs::remove_dir_all(case.folder.join("..2026_01_01_00_00_00.1")).expect("it is there");
    case.settles().expect("a good file");
    assert_eq!(case.limit(), Some(3));
}

/// P28. What is bad is told once, to the caller and to the commands, and what is good again is taken.
#[test]
fn p28_a_bad_file_keeps_the_last_good_one_and_is_told_once() {
    let mut case = Case::new("bad");
    case.write(&limit(2));
    case.file.load(&case.registry).expect("a good file");
    let mut events = case.command.subscribe();
    for (text, expected) in [
        ("default.max_concurrent = ", "TOML parse error at line 1, column 26"),
        ("[default]\nmax_concurrent = 0", "max_concurrent is 0, allowed: 1 to 16777214 calls"),
        ("[default]\nmax_concurrency = 5", "unknown field `max_concurrency`"),
        ("default.breaker.window = \"15ms\"", "command `followed`: breaker.window is 15ms in 10 buckets"),
    ] {
        case.write(text);
        let why = cause(case.settles());
        assert!(why.contains(expected), "{why}");
        assert_eq!(case.limit(), Some(2), "{text}");
        let told = drain(&mut events);
        let [Event::ReloadRejected { command: "followed", reason, .. }] = &told[..] else { panic!("{told:?}") };
        assert!(reason.contains(expected), "{reason}");
        assert!(case.look().is_none() && case.look().is_none(), "it was told");
        assert_eq!(drain(&mut events), []);
    }
    case.write(&limit(2));
    assert_eq!(case.settles().expect("it is good again"), Reload::default());
    case.write(&limit(4));
    case.settles().expect("a good file");
    assert_eq!(case.limit(), Some(4));
}

/// Half of a configuration may be a good one, and an empty file is: neither is taken while it is being written.
#[test]
fn a_file_that_is_being_written_in_place_is_not_taken_half() {
    let mut case = Case::new("written");
    case.write(&limit(2));
    case.file.load(&case.registry).expect("a good file");
    let whole = "default.max_concurrent = 40\ncommands.followed.timeout = \"80ms\"\n";
    for written in ["", "default.max_conc", "default.max_concurrent = 4", "default.max_concurrent = 40\n", whole] {
        case.write(written);
        assert!(case.look().is_none());
        assert_eq!(case.limit(), Some(2), "after {written:?}");
    }
    let reload = case.look().expect("it has settled").expect("a good file");
    let fields: Vec<_> = reload.changed[0].changes.iter().map(|change| change.field).collect();
    assert_eq!(fields, ["timeout", "bulkhead"]);
    assert_eq!(case.limit(), Some(40));
}

#[test]
fn a_file_that_is_missing_for_a_moment_is_no_news_and_for_long_is() {
    let mut case = Case::new("missing");
    case.write(&limit(2));
    case.file.load(&case.registry).expect("a good file");
    fs::remove_file(case.folder.join("fusebox.toml")).expect("it is there");
    assert!(case.look().is_none());
    case.write(&limit(2));
    assert!(case.look().is_none() && case.look().is_none(), "as before");

    fs::remove_file(case.folder.join("fusebox.toml")).expect("it is there");
    assert!(matches!(case.settles(), Err(ReloadError::Read(_))));
    assert_eq!(case.limit(), Some(2));
    case.write(&limit(2));
    assert_eq!(case.settles().expect("it is back"), Reload::default());
}

#[test]
fn what_is_no_file_to_read_is_refused() {
    let mut case = Case::new("odd");
    let path = case.folder.join("fusebox.toml");
    assert!(matches!(case.file.load(&case.registry), Err(ReloadError::Read(_))), "there is none");
    fs::create_dir(&path).expect("a folder");
    assert_eq!(cause(case.file.load(&case.registry)), "it is no regular file");
    fs::remove_dir(&path).expect("it is there");
    fs::write(&path, vec![b'#'; (1 << 20) + 1]).expect("it can be written");
    assert_eq!(cause(case.file.load(&case.registry)), "it is longer than 1 MiB");
    fs::write(&path, b"default.timeout = \"\xff\"").expect("it can be written");
    assert_eq!(cause(case.file.load(&case.registry)), "stream did not contain valid UTF-8");
    case.write(&"#".repeat(1 << 20));
    case.file.load(&case.registry).expect("the longest there may be");
}

#[tokio::test(start_paused = true)]
async fn changed_looks_as_often_as_it_was_told() {
    let mut case = Case::new("changed");
    case.write(&limit(2));
    case.file.load(&case.registry).expect("a good file");
    case.write(&limit(3));
    let start = Instant::now();
    let reload = case.file.changed(&case.registry, secs(5)).await.expect("a good file");
    assert_eq!((reload.changed.len(), case.limit()), (1, Some(3)));
    assert_eq!(start.elapsed().as_secs(), 10, "two looks");
    case.write("default.max_concurrent = 0");
    assert!(case.file.changed(&case.registry, secs(5)).await.is_err());
    assert_eq!((start.elapsed().as_secs(), case.limit()), (20, Some(3)));
}

/// Dropped at each of its waits, as `select!` does, it comes to the same end at the same time.
#[tokio::test(start_paused = true)]
async fn changed_is_cancel_safe() {
    let mut case = Case::new("cancelled");
    case.write(&limit(2));
    case.file.load(&case.registry).expect("a good file");
    case.write(&limit(3));
    let start = Instant::now();
    let outcome = loop {
        assert!(start.elapsed() < secs(60), "it never comes to look");
        match case.file.changed(&case.registry, secs(5)).now_or_never() {
            Some(outcome) => break outcome,
            None => advance(ms(100)).await,
        }
        // Polled once more, while it may be reading.
        let again = tokio::time::timeout(ms(100), case.file.changed(&case.registry, secs(5))).await;
        if let Ok(outcome) = again {
            break outcome;
        }
    };
    outcome.expect("a good file");
    assert_eq!(case.limit(), Some(3));
    assert!((10..12).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn follow_goes_on_after_a_bad_file() {
    let case = Case::new("followed");
    case.write(&limit(2));
    let mut events = case.command.subscribe();
    let following = tokio::spawn(case.file.follow(case.registry.clone(), secs(1)));
    let path = case.folder.join("fusebox.toml");
    for (text, expected) in [(limit(2), Some(2)), ("?".to_owned(), None), (limit(3), Some(3))] {
        fs::write(&path, text).expect("it can be written");
        let event = futures::StreamExt::next(&mut events).await.expect("the command is there");
        assert_eq!(matches!(event, Event::Reconfigured { .. }), expected.is_some(), "{event}");
        if expected.is_some() {
            assert_eq!(case.command.snapshot().limit(), expected);
        }
    }
    following.abort();
}

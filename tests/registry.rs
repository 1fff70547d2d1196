//! The events of all commands of a registry, as one stream.

use fusebox::{Command, Event, Events, Registry, State};
use futures::{FutureExt, StreamExt};

fn build(registry: &Registry, name: &str) -> Command {
    Command::builder(name).registry(registry).build().expect("a good configuration")
}

/// What is there to read: the command and the state it changed to. `None` at the end of the stream.
fn read(events: &mut Events) -> Vec<Option<(&'static str, State)>> {
    std::iter::from_fn(|| events.next().now_or_never())
        .filter_map(|event| match event {
            Some(Event::Transition(transition)) => Some(Some((transition.command, transition.to))),
            Some(_) => None,
            None => Some(None),
        })
        .take(10)
        .collect()
}

#[test]
fn a_subscription_to_a_registry_has_the_events_of_commands_made_before_and_after_it() {
    let registry = Registry::new();
    let before = build(&registry, "before");
    before.force_open("nobody listens yet", None);
    let (mut first, mut second) = (registry.subscribe(), registry.subscribe());
    let after = build(&registry, "after");
    let elsewhere = build(&Registry::new(), "elsewhere");

    before.clear_override();
    after.force_open("a drill", None);
    elsewhere.force_open("of another registry", None);
    before.force_closed("a drill", None);

    let expected = [("before", State::Closed), ("after", State::ForcedOpen), ("before", State::ForcedClosed)].map(Some);
    assert_eq!(read(&mut first), expected);
    assert_eq!(read(&mut second), expected, "each subscriber gets each event");
}

#[test]
fn it_outlives_commands_and_ends_with_the_registry_and_the_last_of_them() {
    let registry = Registry::new();
    let mut events = registry.subscribe();
    drop(build(&registry, "short-lived"));
    let last = build(&registry, "last");
    drop(registry);
    last.force_open("a drill", None);
    assert_eq!(read(&mut events), [Some(("last", State::ForcedOpen))]);
    drop(last);
    assert_eq!(read(&mut events)[0], None);
}

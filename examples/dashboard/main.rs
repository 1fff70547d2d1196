//! A service with a dashboard, and a way to break it: open the page, type `fail payments.charge`, and watch.
//!
//! ```text
//! cargo run --release --example dashboard
//! ```
//!
//! `serve.rs` is what a service does to have the dashboard and the Hystrix stream; `service.rs` is the service: commands,
//! callers that never rest, and suppliers that do as they are told. The browser tests drive this example.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "one door to clocks and locks is a rule for the library; this is a program that uses it"
)]

mod serve;
mod service;

use std::io;
use std::process::ExitCode;
use std::thread;

use service::{Cue, Manner, Service};
use tokio::sync::mpsc;

const HELP: &str = "\
A service with a dashboard. Once it runs, type what should happen to it.

Usage: cargo run --release --example dashboard -- [OPTIONS]

Options:
      --port <PORT>      Port on loopback [default: any that is free]
      --more <NUMBER>    So many more commands [default: 0]
      --keyed            One more command, with a circuit for each of three partners
      --no-actions       A page that can only be looked at
      --viewer           Actions are enabled, and nobody has the right to them
  -h, --help             This text

While it runs:
  fail NAME | slow NAME | hang NAME | heal NAME    what the supplier of a command does from now on
  pause NAME | resume NAME                         whether anybody calls it
  quit                                             or ctrl-d
";

struct Args {
    port: u16,
    more: u32,
    keyed: bool,
    may: serve::May,
}

fn parse(mut parser: lexopt::Parser) -> Result<Option<Args>, lexopt::Error> {
    use lexopt::prelude::*;

    let mut args = Args { port: 0, more: 0, keyed: false, may: serve::May::Act };
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(None),
            Long("port") => args.port = parser.value()?.parse()?,
            Long("more") => args.more = parser.value()?.parse()?,
            Long("keyed") => args.keyed = true,
            Long("no-actions") => args.may = serve::May::OnlyLook,
            Long("viewer") => args.may = serve::May::NotAct,
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(args))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let args = match parse(lexopt::Parser::from_env()) {
        Ok(Some(args)) => args,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("dashboard: {error}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dashboard: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> io::Result<()> {
    let service = Service::start(args.more, args.keyed).map_err(io::Error::other)?;
    let address = serve::start(args.port, args.may).await?;
    println!("http://{address}/fusebox/");
    println!("commands: {}", service.names().collect::<Vec<_>>().join(" "));
    let mut lines = typed();
    while let Some(line) = lines.recv().await {
        let mut words = line.split_whitespace();
        let (verb, name) = (words.next(), words.next().unwrap_or_default());
        let cue = match verb {
            Some("fail") => Cue::Supplier(Manner::Fail),
            Some("slow") => Cue::Supplier(Manner::Slow),
            Some("hang") => Cue::Supplier(Manner::Hang),
            Some("heal") => Cue::Supplier(Manner::Well),
            Some("pause") => Cue::Pause(true),
            Some("resume") => Cue::Pause(false),
            Some("quit") => break,
            None => continue,
            Some(other) => {
                println!("{other}? See --help");
                continue;
            }
        };
        match service.cue(name, cue) {
            true => println!("{line}: done"),
            false => println!("{name}? There is no such command"),
        }
    }
    Ok(())
}

/// What is typed, line by line. On a thread of its own: nothing can wait for standard input without blocking.
fn typed() -> mpsc::UnboundedReceiver<String> {
    let (tell, told) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    told
}

//! A shop that stays up while its suppliers break.
//!
//! Circuit breakers are easy to describe and hard to believe in. This example puts a number on them: one shop page that
//! needs three suppliers, each a real HTTP server on loopback; one script of faults; and the same traffic twice, first
//! without commands and then with one [`fusebox::Command`] around every supplier call. At the end stands what the
//! commands were worth.
//!
//! ```text
//! cargo run --release --example storefront              # about 100 seconds
//! cargo run --release --example storefront -- --short   # the same story in about 20; exits with 1 if commands lose
//! ```
//!
//! Where to read on: `commands.rs` is how a service sets its commands up and `shop.rs` how it calls them;
//! `schedule.rs` is the script; everything else is the stage.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "one door to clocks and locks is a rule for the library; this is a program that uses it"
)]

mod args;
mod client;
mod commands;
mod dashboard;
mod driver;
mod ledger;
mod metrics;
mod page;
mod report;
mod run;
mod schedule;
mod screen;
mod server;
mod shop;
mod stop;
mod table;
mod view;
mod worth;

use std::io;
use std::process::ExitCode;

use args::Args;
use run::Protection;
use screen::Screen;
use stop::Stop;

/// As a shell reports a program that ctrl-c ended.
const INTERRUPTED: u8 = 130;
const BAD_USAGE: u8 = 2;

// The suppliers, the shop and its visitors share these two threads; what is printed blocks neither.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let args = match Args::parse(lexopt::Parser::from_env()) {
        Ok(Some(args)) => args,
        Ok(None) => {
            print!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("storefront: {error}\nTry --help.");
            return ExitCode::from(BAD_USAGE);
        }
    };
    match story(&args).await {
        Ok(code) => code,
        // The reader went away (`storefront | head`): there is nobody left to tell.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storefront: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Both runs and the reckoning.
async fn story(args: &Args) -> io::Result<ExitCode> {
    let stop = Stop::on_ctrl_c();
    let metrics = metrics::serve(args.metrics_port).await?;
    let dashboard = dashboard::serve(args.dashboard_port).await?;
    let mut screen = Screen::new(args.plain);
    screen.say(&report::prologue(args, metrics, dashboard))?;

    let without = run::run(Protection::None, args, &mut screen, &stop).await?;
    let with = match stop.is_requested() {
        false => Some(run::run(Protection::Commands, args, &mut screen, &stop).await?),
        true => None,
    };

    let (text, better) = report::epilogue(args, &without, with.as_ref());
    screen.say(&text)?;
    if stop.is_requested() {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    if args.keep {
        screen.say(&format!("\nhttp://{dashboard}/ and http://{metrics}/metrics stay up until ctrl-c"))?;
        stop.requested().await;
    }
    Ok(if better { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

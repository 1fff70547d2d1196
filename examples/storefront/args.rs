//! The command line, checked before anything is started: a typo should cost a line of text and not a minute.

use crate::schedule::{Pace, Supplier};

pub(crate) const HELP: &str = "\
A shop page calls three suppliers that break on a schedule, first without fusebox commands and then with them.

Usage: cargo run --release --example storefront -- [OPTIONS]

Options:
      --short                        The whole story in about 20 seconds instead of about 100
      --rate <PAGES>                 Pages asked for per second, 50 to 300 [default: 100]
      --seed <NUMBER>                Seed of the suppliers' latencies and errors [default: 1]
      --metrics-port <PORT>          Port of /metrics [default: any that is free]
      --dashboard-port <PORT>        Port of the dashboard and /hystrix.stream [default: any that is free]
      --prices-port <PORT>           Port of the prices supplier [default: any that is free]
      --stock-port <PORT>            Port of the stock supplier [default: any that is free]
      --recommendations-port <PORT>  Port of the recommendations supplier [default: any that is free]
      --plain                        Lines of text, also on a terminal
      --keep                         Keep serving /metrics and the dashboard at the end, until ctrl-c
  -h, --help                         This text

Exit code: 0 if the run with commands was the better one, 1 if it was not or something failed, 2 for bad arguments,
130 after ctrl-c.
";

/// Slower, and a short fault sees too few calls to say anything; faster, and two cores would measure themselves.
const RATES: std::ops::RangeInclusive<u32> = 50..=300;

#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) pace: Pace,
    /// Pages per second.
    pub(crate) rate: u32,
    pub(crate) seed: u64,
    /// 0 for any that is free, here and below.
    pub(crate) metrics_port: u16,
    pub(crate) dashboard_port: u16,
    /// In the order of [`Supplier::ALL`].
    pub(crate) supplier_ports: [u16; Supplier::COUNT],
    pub(crate) plain: bool,
    pub(crate) keep: bool,
}

impl Args {
    /// `None` if all that is wanted is the help text.
    pub(crate) fn parse(mut parser: lexopt::Parser) -> Result<Option<Self>, lexopt::Error> {
        use lexopt::prelude::*;

        let mut args = Self {
            pace: Pace::FULL,
            rate: 100,
            seed: 1,
            metrics_port: 0,
            dashboard_port: 0,
            supplier_ports: [0; Supplier::COUNT],
            plain: false,
            keep: false,
        };
        while let Some(arg) = parser.next()? {
            match arg {
                Short('h') | Long("help") => return Ok(None),
                Long("short") => args.pace = Pace::SHORT,
                Long("rate") => args.rate = rate(parser.value()?.parse()?)?,
                Long("seed") => args.seed = parser.value()?.parse()?,
                Long("metrics-port") => args.metrics_port = parser.value()?.parse()?,
                Long("dashboard-port") => args.dashboard_port = parser.value()?.parse()?,
                Long("prices-port") => *args.port_of(Supplier::Prices) = parser.value()?.parse()?,
                Long("stock-port") => *args.port_of(Supplier::Stock) = parser.value()?.parse()?,
                Long("recommendations-port") => {
                    *args.port_of(Supplier::Recommendations) = parser.value()?.parse()?;
                }
                Long("plain") => args.plain = true,
                Long("keep") => args.keep = true,
                other => return Err(other.unexpected()),
            }
        }
        Ok(Some(args))
    }

    fn port_of(&mut self, supplier: Supplier) -> &mut u16 {
        &mut self.supplier_ports[supplier as usize]
    }
}

fn rate(rate: u32) -> Result<u32, String> {
    if RATES.contains(&rate) {
        return Ok(rate);
    }
    Err(format!("--rate is {rate}, allowed: {} to {} pages per second", RATES.start(), RATES.end()))
}

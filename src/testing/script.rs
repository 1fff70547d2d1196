//! Operations that do as they are told.

use std::fmt;
use std::future::{Future, pending};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::sync::Mutex;
use crate::time::{Stamp, saturating_nanos, timer};

/// What a dependency answers, call by call, and what became of these calls.
///
/// A step is an answer ([`ok`](Script::ok), [`err`](Script::err), [`with`](Script::with)), or none
/// ([`hang`](Script::hang), [`panic`](Script::panic)); [`after`](Script::after), [`times`](Script::times) and
/// [`forever`](Script::forever) change the step before them. A call beyond the last step panics and names script and
/// caller. A clone is the same script.
///
/// ```
/// use std::time::Duration;
/// use fusebox::testing::Script;
/// use fusebox::{Command, Jitter, Retry};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ms = Duration::from_millis;
/// let pricing = Command::builder("pricing").retry(Retry::exponential(ms(20)).jitter(Jitter::None)).build()?;
///
/// let supplier = Script::new().err("busy").times(2).ok(7).after(ms(30));
/// assert_eq!(pricing.retry(|| supplier.call()).await, Ok(7));
/// assert_eq!(supplier.starts(), [ms(0), ms(20), ms(60)]);
///
/// // What is refused never gets there.
/// pricing.force_open("maintenance", None);
/// assert!(pricing.run(|| supplier.call()).await.is_err());
/// assert_eq!(supplier.started(), 3);
/// # Ok(())
/// # }
/// ```
///
/// Implement your own trait for it, and it stands in for your client: see the [module](super).
#[must_use = "a script does nothing until it is called"]
pub struct Script<T, E> {
    shared: Arc<Shared<T, E>>,
}

struct Shared<T, E> {
    /// Where it was made.
    place: &'static Location<'static>,
    begun: Stamp,
    play: Mutex<Play<T, E>>,
}

struct Play<T, E> {
    steps: Vec<Step<T, E>>,
    starts: Vec<Stamp>,
    ended: usize,
    dropped: usize,
    /// Calls beyond the last step.
    excess: usize,
}

struct Step<T, E> {
    name: &'static str,
    act: Act<T, E>,
    delay: Duration,
    /// How often it is played; `None` for ever.
    times: Option<usize>,
    played: usize,
}

enum Act<T, E> {
    Answer(Arc<dyn Fn() -> Result<T, E> + Send + Sync>),
    Hang,
    Panic(Arc<str>),
}

impl<T, E> Script<T, E> {
    /// A script without any step: who calls it panics.
    #[track_caller]
    pub fn new() -> Self {
        let play = Play { steps: Vec::new(), starts: Vec::new(), ended: 0, dropped: 0, excess: 0 };
        Self { shared: Arc::new(Shared { place: Location::caller(), begun: Stamp::now(), play: Mutex::new(play) }) }
    }

    // ---- steps ----

    /// Then a call returns this value.
    #[track_caller]
    pub fn ok(self, value: T) -> Self
    where
        T: Clone + Send + Sync + 'static,
    {
        self.step("ok", Act::Answer(Arc::new(move || Ok(value.clone()))))
    }

    /// Then a call returns this error. For one that cannot be cloned, as `std::io::Error`, see [`Script::with`].
    #[track_caller]
    pub fn err(self, error: E) -> Self
    where
        E: Clone + Send + Sync + 'static,
    {
        self.step("err", Act::Answer(Arc::new(move || Err(error.clone()))))
    }

    /// Then a call returns what the closure does.
    ///
    /// ```
    /// use std::io;
    /// use fusebox::testing::Script;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let socket = Script::<u32, _>::new().with(|| Err(io::Error::from(io::ErrorKind::ConnectionReset))).forever();
    /// assert!(socket.call().await.is_err());
    /// # }
    /// ```
    #[track_caller]
    pub fn with(self, answer: impl Fn() -> Result<T, E> + Send + Sync + 'static) -> Self {
        self.step("with", Act::Answer(Arc::new(answer)))
    }

    /// Then a call never ends by itself: only a timeout ends it, or a drop.
    #[track_caller]
    pub fn hang(self) -> Self {
        self.step("hang", Act::Hang)
    }

    /// Then a call panics with this message.
    #[track_caller]
    pub fn panic(self, message: &str) -> Self {
        self.step("panic", Act::Panic(message.into()))
    }

    /// The step before this takes so long, by tokio's clock and to its millisecond. Without it a call is ready at once.
    #[track_caller]
    pub fn after(self, delay: Duration) -> Self {
        self.change("after", |step| step.delay = delay)
    }

    /// The step before this is played so often.
    #[track_caller]
    pub fn times(self, times: usize) -> Self {
        assert!(times > 0, "times is 0, allowed: at least 1");
        self.change("times", |step| step.times = Some(times))
    }

    /// The step before this is played for ever, and so it is the last.
    #[track_caller]
    pub fn forever(self) -> Self {
        self.change("forever", |step| step.times = None)
    }

    #[track_caller]
    fn step(self, name: &'static str, act: Act<T, E>) -> Self {
        let mut play = self.shared.play.lock();
        let is_reached = play.steps.last().is_none_or(|step| step.times.is_some());
        if is_reached {
            play.steps.push(Step { name, act, delay: Duration::ZERO, times: Some(1), played: 0 });
        }
        drop(play);
        assert!(is_reached, "`{name}` follows a step that is played for ever, and would never be reached");
        self
    }

    #[track_caller]
    fn change(self, name: &str, change: impl FnOnce(&mut Step<T, E>)) -> Self {
        let changed = self.shared.play.lock().steps.last_mut().map(change);
        assert!(changed.is_some(), "`{name}` changes the step before it, and there is none");
        self
    }

    // ---- playing ----

    /// A call, which plays the next step. It starts when it is first polled: one that is made and refused never does.
    ///
    /// # Panics
    ///
    /// When it is polled and the script is over, or the step is a [panic](Script::panic).
    #[track_caller]
    pub fn call(&self) -> impl Future<Output = Result<T, E>> + Send + use<T, E> {
        let (shared, caller) = (Arc::clone(&self.shared), Location::caller());
        async move {
            let (act, delay) = shared.start().unwrap_or_else(|steps| {
                panic!("the script of {} is over after {steps}, and was called once more at {caller}", shared.place)
            });
            let running = Running { shared: &shared, is_over: false };
            if !delay.is_zero() {
                timer(Stamp::now(), saturating_nanos(delay)).await;
            }
            match act {
                Act::Answer(answer) => {
                    running.end();
                    answer()
                }
                Act::Hang => pending().await,
                Act::Panic(message) => {
                    running.end();
                    panic!("{message}")
                }
            }
        }
    }

    // ---- what became of it ----

    /// How many calls were started.
    pub fn started(&self) -> usize {
        self.shared.play.lock().starts.len()
    }

    /// When each of them was started, since the script was made.
    pub fn starts(&self) -> Vec<Duration> {
        let begun = self.shared.begun;
        self.shared.play.lock().starts.iter().map(|start| start.since(begun)).collect()
    }

    /// How many are running.
    pub fn running(&self) -> usize {
        self.shared.play.lock().running()
    }

    /// How many ended by themselves, by a panic too.
    pub fn ended(&self) -> usize {
        self.shared.play.lock().ended
    }

    /// How many were dropped unfinished: timed out, cancelled, outrun.
    pub fn dropped(&self) -> usize {
        self.shared.play.lock().dropped
    }

    /// Asserts that every step was played, as often as it says, that no call is running, and that none came after the
    /// last step, even if its panic was caught. A step that is played [for ever](Script::forever) may have been played
    /// any number of times, and none.
    ///
    /// # Panics
    ///
    /// If not; the message says which steps are left.
    #[track_caller]
    pub fn assert_finished(&self) {
        let play = self.shared.play.lock();
        let missing = play.steps.iter().map(|step| step.times.map_or(0, |times| times - step.played)).sum();
        let (running, excess) = (play.running(), play.excess);
        let wrong = [(missing, "missing"), (running, "running"), (excess, "beyond its end")];
        let wrong =
            wrong.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{} {what}", calls(*count)));
        let wrong: Vec<_> = wrong.collect();
        let steps = play.to_string();
        drop(play);
        assert!(wrong.is_empty(), "the script of {} has {}:\n{steps}", self.shared.place, wrong.join(", "));
    }
}

fn calls(count: usize) -> String {
    if count == 1 { "1 call".to_owned() } else { format!("{count} calls") }
}

impl<T, E> Shared<T, E> {
    /// Begins the next step; the steps that there were, if there is none.
    fn start(&self) -> Result<(Act<T, E>, Duration), String> {
        let mut play = self.play.lock();
        let next = play.steps.iter_mut().find(|step| step.times.is_none_or(|times| step.played < times));
        let Some(step) = next else {
            play.excess += 1;
            return Err(calls(play.starts.len()));
        };
        step.played += 1;
        let next = (step.act.clone(), step.delay);
        play.starts.push(Stamp::now());
        Ok(next)
    }
}

/// A call that was started.
struct Running<'s, T, E> {
    shared: &'s Shared<T, E>,
    is_over: bool,
}

impl<T, E> Running<'_, T, E> {
    fn end(mut self) {
        self.is_over = true;
    }
}

impl<T, E> Drop for Running<'_, T, E> {
    fn drop(&mut self) {
        let mut play = self.shared.play.lock();
        if self.is_over {
            play.ended += 1;
        } else {
            play.dropped += 1;
        }
    }
}

impl<T, E> Play<T, E> {
    fn running(&self) -> usize {
        self.starts.len() - self.ended - self.dropped
    }
}

impl<T, E> Clone for Act<T, E> {
    fn clone(&self) -> Self {
        match self {
            Self::Answer(answer) => Self::Answer(Arc::clone(answer)),
            Self::Hang => Self::Hang,
            Self::Panic(message) => Self::Panic(Arc::clone(message)),
        }
    }
}

impl<T, E> Clone for Script<T, E> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T, E> Default for Script<T, E> {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

/// One line for each step: what it is, how often it was played, and how often it is to be.
impl<T, E> fmt::Display for Play<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whats: Vec<_> = self.steps.iter().map(Step::to_string).collect();
        let width = whats.iter().map(String::len).max().unwrap_or_default();
        for ((step, what), number) in self.steps.iter().zip(&whats).zip(1..) {
            write!(f, "\n  {number:>2}. {what:<width$}  played {}", step.played)?;
            match step.times {
                Some(times) => write!(f, " of {times}")?,
                None => f.write_str(", for ever")?,
            }
        }
        writeln!(f)
    }
}

impl<T, E> fmt::Display for Step<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, act, delay, .. } = self;
        f.write_str(name)?;
        if let Act::Panic(message) = act {
            write!(f, " {message:?}")?;
        }
        if delay.is_zero() { Ok(()) } else { write!(f, ", after {delay:?}") }
    }
}

impl<T, E> fmt::Debug for Script<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let play = self.shared.play.lock();
        let (started, running) = (play.starts.len(), play.running());
        let mut script = f.debug_struct("Script");
        script.field("place", &format_args!("{}", self.shared.place));
        script.field("steps", &play.steps.len()).field("started", &started).field("running", &running).finish()
    }
}

//! Bounded load: closed loops, in which each visitor asks as soon as it has been answered, and open loops, in which
//! requests have due times and what waits for them counts.

use crate::visitor::{Door, Visitor};
use anyhow::{Context, Result};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// No small request may take longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Idle connections that are opened at once.
const OPENED_AT_ONCE: u64 = 50;
/// The length of a reply that does not come.
const HELD: u64 = 1 << 20;
/// More requests than any loop has time for.
pub(crate) const ENDLESS: u64 = 1_000_000_000;
/// A visitor who has met so many errors gives up, so that a contender that is down ends its round.
const MOST_ERRORS: u64 = 20;

/// What a load has come to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Requests with the right reply.
    pub(crate) done: u64,
    pub(crate) errors: u64,
    /// What the first error was.
    pub(crate) first: Option<String>,
    /// Connections that the contender ended although they were to be kept.
    pub(crate) ended: u64,
    /// Of an open loop: all requests, the failed ones too.
    pub(crate) visits: Vec<Visit>,
}

/// One request of an open loop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visit {
    /// Since the loop began.
    pub(crate) due: Duration,
    /// From then until the reply or the error.
    pub(crate) took: Duration,
    pub(crate) good: bool,
}

impl Tally {
    pub(crate) fn error(&mut self, error: &anyhow::Error) {
        self.errors += 1;
        self.first.get_or_insert_with(|| format!("{error:#}"));
    }

    /// One more request; [`request`] tells how it ended.
    fn count(&mut self, reply: Result<bool>) {
        match reply {
            Ok(ended) => {
                self.done += 1;
                self.ended += u64::from(ended);
            }
            Err(error) => self.error(&error),
        }
    }

    fn sum(all: Vec<Self>) -> Self {
        let mut sum = Self::default();
        all.into_iter().for_each(|tally| sum.add(tally));
        sum
    }

    fn add(&mut self, other: Self) {
        self.done += other.done;
        self.errors += other.errors;
        self.ended += other.ended;
        self.first = self.first.take().or(other.first);
        self.visits.extend(other.visits);
    }
}

/// Visitors without a pause between requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Closed {
    pub(crate) visitors: u64,
    /// Whether a connection is used for more than one request.
    pub(crate) keep: bool,
    /// How long they go on.
    pub(crate) time: Duration,
    /// Requests after which they stop all the same, so that ports do not run out.
    pub(crate) most: u64,
}

/// Runs it; the visitors are shared out among the doors.
pub(crate) async fn closed(doors: &[Door], load: Closed) -> Tally {
    let end = Instant::now() + load.time;
    let one = |n: u64| {
        let door = doors[(n % doors.len() as u64) as usize].clone();
        async move {
            let mut tally = Tally::default();
            let mut kept = None;
            // Each asks for numbers of its own.
            for i in 0..load.most / load.visitors {
                if Instant::now() >= end || tally.errors >= MOST_ERRORS {
                    break;
                }
                tally.count(request(&door, &mut kept, n * load.most + i, load.keep, PATIENCE).await);
            }
            tally
        }
    };
    Tally::sum((0..load.visitors).map(one).collect::<JoinSet<_>>().join_all().await)
}

/// Visitors who are connected already and ask for so long, again as soon as they are answered, but no sooner than `pause` after they
/// asked. No reply in `patience` is an error, after which they connect anew.
pub(crate) async fn steady(
    door: &Door,
    visitors: Vec<Visitor>,
    time: Duration,
    pause: Duration,
    patience: Duration,
) -> Tally {
    let end = Instant::now() + time;
    let one = |(n, visitor): (u64, Visitor)| {
        let door = door.clone();
        async move {
            let (mut tally, mut kept) = (Tally::default(), Some(visitor));
            let mut number = n * ENDLESS;
            while Instant::now() < end {
                let next = Instant::now() + pause;
                tally.count(request(&door, &mut kept, number, true, patience).await);
                number += 1;
                sleep_until(next).await;
            }
            tally
        }
    };
    Tally::sum((0..).zip(visitors).map(one).collect::<JoinSet<_>>().join_all().await)
}

/// One request over the kept connection, or over a new one; whether the other side ends a connection that was to be kept.
async fn request(
    door: &Door,
    kept: &mut Option<Visitor>,
    number: u64,
    keep: bool,
    patience: Duration,
) -> Result<bool> {
    let ask = async {
        let mut visitor = match kept.take() {
            Some(visitor) => visitor,
            None => Visitor::connect(door, number).await?,
        };
        visitor.echo(number, !keep).await?;
        let ended = keep && visitor.ends;
        *kept = Some(visitor).filter(|_| keep && !ended);
        Ok(ended)
    };
    timeout(patience, ask).await.with_context(|| format!("no reply within {patience:?}"))?
}

/// How a connection comes to be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Between two requests.
    Answered,
    /// In the middle of a reply.
    Unfinished,
}

/// Opens so many connections, shared out among the doors, which have one request each and are then silent.
pub(crate) async fn idle(doors: &[Door], count: u64, silence: Silence) -> Result<Vec<Visitor>> {
    let mut held = Vec::new();
    for first in (0..count).step_by(OPENED_AT_ONCE as usize) {
        let open = |number: u64| {
            let door = doors[(number % doors.len() as u64) as usize].clone();
            async move {
                let mut visitor = Visitor::connect(&door, number).await?;
                match silence {
                    Silence::Answered => visitor.echo(number, false).await.map(|_| ())?,
                    Silence::Unfinished => visitor.begin(&format!("/held/{HELD}"), HELD).await?,
                }
                anyhow::Ok(visitor)
            }
        };
        let some = (first..count.min(first + OPENED_AT_ONCE)).map(open);
        for visitor in some.collect::<JoinSet<_>>().join_all().await {
            held.push(visitor?);
        }
    }
    Ok(held)
}

/// `rate` new connections a second for so long, one request on each, however long the others take. No reply in `patience` is
/// an error.
pub(crate) async fn open(door: &Door, rate: u32, time: Duration, patience: Duration) -> Tally {
    let start = Instant::now();
    let count = u64::from(rate) * time.as_millis() as u64 / 1000;
    let mut running = JoinSet::new();
    for number in 0..count {
        let due = Duration::from_secs(number) / rate;
        sleep_until(start + due).await;
        let door = door.clone();
        running.spawn(async move { (due, door.visit(number, patience).await, (start + due).elapsed()) });
    }
    let mut tally = Tally::default();
    for (due, reply, took) in running.join_all().await {
        tally.visits.push(Visit { due, took, good: reply.is_ok() });
        match reply {
            Ok(_) => tally.done += 1,
            Err(error) => tally.error(&error),
        }
    }
    tally
}

/// So many downloads at once, of so many bytes each.
pub(crate) async fn bulk(doors: &[Door], visitors: u64, bytes: u64) -> Tally {
    let one = |n: u64| {
        let door = doors[(n % doors.len() as u64) as usize].clone();
        async move { Visitor::connect(&door, n).await?.download(bytes).await }
    };
    let patience = Duration::from_secs(30);
    let limited = |n| {
        let one = one(n);
        async move { timeout(patience, one).await.with_context(|| format!("not finished within {patience:?}"))? }
    };
    let mut tally = Tally::default();
    for download in (0..visitors).map(limited).collect::<JoinSet<Result<()>>>().join_all().await {
        match download {
            Ok(()) => tally.done += 1,
            Err(error) => tally.error(&error),
        }
    }
    tally
}

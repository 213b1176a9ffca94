//! A timer for deadlines that mostly move away before they come.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep, sleep_until};

/// Set for the earliest deadline that it was asked for; one that has moved away is looked at again when that comes. So waiting
/// again and again, each time for a later moment, touches the runtime's timers no more than once in a while.
#[derive(Debug, Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready when the deadline has come; only the last one asked for counts.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn each_deadline_comes_when_it_is_due_whatever_came_before() {
        let mut timer = Timer::default();
        for millis in [50, 10, 200, 10, 10, 0] {
            let (began, wait) = (Instant::now(), Duration::from_millis(millis));
            poll_fn(|cx| {
                // Others that are not waited for to the end.
                for other in [70, 30, 400] {
                    let _ = timer.poll(cx, began + wait + Duration::from_millis(other));
                }
                timer.poll(cx, began + wait)
            })
            .await;
            let late = began.elapsed() - wait;
            assert!(late <= Duration::from_millis(1), "{late:?} of {wait:?}");
        }
    }
}

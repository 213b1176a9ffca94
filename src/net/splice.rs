//! Moving bytes between two TCP sockets inside the kernel, through a pipe: `splice(2)`, on Linux.
//!
//! A [`Splicer`] belongs to one direction of one connection. It decides when splicing pays, borrows a pipe for as long
//! as data is in flight and gives it back when the source runs dry. `copy` does the rest, and everything elsewhere.

pub(crate) use imp::Splicer;

/// How much of a TCP stream is read into memory at a time before splicing is thought of; reads that fill this are a
/// sign of bulk.
pub(crate) const PROBE_SIZE: usize = 16 * 1024;

#[cfg(target_os = "linux")]
mod imp {
    use rustix::io::Errno;
    use rustix::pipe::{self, PipeFlags, SpliceFlags};
    use std::cell::RefCell;
    use std::io::{self, ErrorKind};
    use std::os::fd::{AsFd, OwnedFd};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, ready};
    use tokio::io::Interest;
    use tokio::net::TcpStream;

    /// Full reads in a row after which splicing starts: short exchanges never pay for a pipe.
    const FULL_READS: u8 = 2;

    /// A burst smaller than this was not worth a pipe; the next one is copied again.
    const SMALL_BURST: usize = 8 * 1024;

    /// The size asked for; the kernel may grant less.
    const PIPE_SIZE: usize = 256 * 1024;

    /// A smaller pipe than this (unprivileged users get two pages when they have many) is slower than copying.
    const MIN_PIPE_SIZE: usize = 64 * 1024;

    /// Pipes in the whole process: two descriptors each, which peers that stop reading could otherwise make us use up.
    /// Connections beyond are copied.
    const MAX_PIPES: usize = 256;

    /// Free pipes kept per thread.
    const MAX_FREE: usize = 4;

    static PIPES: AtomicUsize = AtomicUsize::new(0);

    thread_local! {
        static FREE: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
    }

    /// One direction's use of `splice(2)`.
    #[derive(Debug, Default)]
    pub(crate) struct Splicer {
        pipe: Option<Pipe>,
        full_reads: u8,
        burst: usize,
        refused: bool,
    }

    impl Splicer {
        /// Takes note of a read into memory, and whether it filled its buffer.
        pub(crate) fn saw_read(&mut self, full: bool) {
            self.full_reads = if full { self.full_reads.saturating_add(1) } else { 0 };
        }

        /// Whether splicing should be tried for what comes next.
        pub(crate) fn wanted(&self) -> bool {
            !self.refused && self.full_reads >= FULL_READS
        }

        /// Moves up to `room` bytes from the socket into the empty pipe; `None`: to be copied instead. Zero is the end.
        pub(crate) fn poll_fill(
            &mut self,
            cx: &mut Context<'_>,
            from: &TcpStream,
            room: usize,
        ) -> Poll<io::Result<Option<usize>>> {
            if self.pipe.is_none() {
                self.pipe = Pipe::take();
            }
            let Some(pipe) = &mut self.pipe else {
                self.full_reads = 0;
                return Poll::Ready(Ok(None));
            };
            loop {
                match from.try_io(Interest::READABLE, || pipe.fill(from, room)) {
                    Ok(n) => {
                        self.burst += n;
                        return Poll::Ready(Ok(Some(n)));
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => match from.poll_read_ready(cx) {
                        Poll::Ready(ready) => ready?,
                        Poll::Pending => {
                            self.rest();
                            return Poll::Pending;
                        }
                    },
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) if refuses(&e) => {
                        self.refused = true;
                        self.pipe = None;
                        return Poll::Ready(Ok(None));
                    }
                    Err(e) => return Poll::Ready(Err(e)),
                }
            }
        }

        /// Whether the pipe holds bytes that are still to be delivered.
        pub(crate) fn holds(&self) -> bool {
            self.pipe.as_ref().is_some_and(|pipe| pipe.held > 0)
        }

        /// Moves what it can from the pipe to the socket; zero when there is nothing.
        pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<usize>> {
            let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.held > 0) else {
                return Poll::Ready(Ok(0));
            };
            loop {
                match to.try_io(Interest::WRITABLE, || pipe.drain(to)) {
                    Err(e) if e.kind() == ErrorKind::WouldBlock => ready!(to.poll_write_ready(cx))?,
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    done => return Poll::Ready(done),
                }
            }
        }

        /// The source has run dry, or is not read any more for now: an idle connection holds no pipe.
        pub(crate) fn rest(&mut self) {
            self.pipe = None;
            if self.burst < SMALL_BURST {
                self.full_reads = 0;
            }
            self.burst = 0;
        }
    }

    /// Whether the kernel cannot splice this at all.
    fn refuses(e: &io::Error) -> bool {
        [Errno::INVAL, Errno::NOSYS, Errno::PERM].iter().any(|no| e.raw_os_error() == Some(no.raw_os_error()))
    }

    /// A pipe on loan; goes back to the pool if it is empty.
    #[derive(Debug)]
    struct Pipe {
        ends: Option<Ends>,
        held: usize,
    }

    impl Pipe {
        fn take() -> Option<Self> {
            let free = FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten();
            let ends = free.or_else(Ends::open)?;
            Some(Self { ends: Some(ends), held: 0 })
        }

        fn fill(&mut self, from: &TcpStream, room: usize) -> io::Result<usize> {
            let Some(ends) = &self.ends else { return Ok(0) };
            let n = splice(from, &ends.write, room.min(ends.size))?;
            self.held += n;
            Ok(n)
        }

        fn drain(&mut self, to: &TcpStream) -> io::Result<usize> {
            let Some(ends) = &self.ends else { return Ok(0) };
            let n = splice(&ends.read, to, self.held)?;
            self.held -= n;
            // A pipe that holds bytes and yields none would make the caller spin.
            if n == 0 { Err(ErrorKind::WriteZero.into()) } else { Ok(n) }
        }
    }

    fn splice(from: impl AsFd, to: impl AsFd, len: usize) -> io::Result<usize> {
        Ok(pipe::splice(from, None, to, None, len, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?)
    }

    impl Drop for Pipe {
        fn drop(&mut self) {
            // One that still holds bytes must be closed: they would turn up in another connection.
            if self.held == 0
                && let Some(ends) = self.ends.take()
            {
                let _ = FREE.try_with(|free| {
                    let mut free = free.borrow_mut();
                    if free.len() < MAX_FREE {
                        free.push(ends);
                    }
                });
            }
        }
    }

    /// The two descriptors, counted.
    #[derive(Debug)]
    struct Ends {
        read: OwnedFd,
        write: OwnedFd,
        size: usize,
        _counted: Counted,
    }

    impl Ends {
        /// `None` when there are enough, when descriptors are short or the pipe would be too small: then we copy.
        fn open() -> Option<Self> {
            let counted = Counted::new()?;
            let (read, write) = pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
            let _ = pipe::fcntl_setpipe_size(&write, PIPE_SIZE);
            let size = pipe::fcntl_getpipe_size(&write).ok().filter(|&size| size >= MIN_PIPE_SIZE)?;
            Some(Self { read, write, size, _counted: counted })
        }
    }

    #[derive(Debug)]
    struct Counted;

    impl Counted {
        fn new() -> Option<Self> {
            let counted = Self;
            (PIPES.fetch_add(1, Ordering::Relaxed) < MAX_PIPES).then_some(counted)
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            PIPES.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_pipe_is_reused_only_when_it_is_empty() {
            let mut full = Pipe::take().unwrap();
            full.held = 1;
            drop(full);
            assert_eq!(FREE.with(|free| free.borrow().len()), 0);
            drop((0..MAX_FREE + 2).map(|_| Pipe::take().unwrap()).collect::<Vec<_>>());
            assert_eq!(FREE.with(|free| free.borrow().len()), MAX_FREE);
        }

        #[test]
        fn splicing_starts_after_full_reads_and_stops_after_a_small_burst() {
            let mut splicer = Splicer::default();
            splicer.saw_read(true);
            splicer.saw_read(false);
            splicer.saw_read(true);
            assert!(!splicer.wanted());
            splicer.saw_read(true);
            assert!(splicer.wanted());
            splicer.burst = SMALL_BURST;
            splicer.rest();
            assert!(splicer.wanted());
            splicer.burst = SMALL_BURST - 1;
            splicer.rest();
            assert!(!splicer.wanted());
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::io;
    use std::task::{Context, Poll};
    use tokio::net::TcpStream;

    /// Never wanted: everything is copied.
    #[derive(Debug, Default)]
    pub(crate) struct Splicer;

    impl Splicer {
        pub(crate) fn saw_read(&mut self, _full: bool) {}

        pub(crate) fn wanted(&self) -> bool {
            false
        }

        pub(crate) fn poll_fill(
            &mut self,
            _cx: &mut Context<'_>,
            _from: &TcpStream,
            _room: usize,
        ) -> Poll<io::Result<Option<usize>>> {
            Poll::Ready(Ok(None))
        }

        pub(crate) fn holds(&self) -> bool {
            false
        }

        pub(crate) fn rest(&mut self) {}

        pub(crate) fn poll_drain(
            &mut self,
            _cx: &mut Context<'_>,
            _to: &TcpStream,
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(0))
        }
    }
}

//! The bytes that bulk bodies are made of, and their checksum; and the end of an HTTP head.

use anyhow::{Result, bail};
use crc32fast::Hasher;
use std::sync::LazyLock;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The pattern repeats after this; a byte that is lost or out of place shows all the same, in the checksum.
const BLOCK: usize = 64 << 10;

static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(1);
    // Twice, so that a whole block begins at every place.
    let block: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(BLOCK).collect();
    [block.clone(), block].concat()
});

/// Writes `count` bytes of the pattern from the place `at` on.
pub(crate) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    mut at: u64,
    count: u64,
) -> std::io::Result<()> {
    let end = at + count;
    while at < end {
        let next = BLOCK.min(usize::try_from(end - at).unwrap_or(BLOCK));
        let from = (at % BLOCK as u64) as usize;
        stream.write_all(&PATTERN[from..from + next]).await?;
        at += next as u64;
    }
    Ok(())
}

/// The checksum of the first `count` bytes.
pub(crate) fn sum(count: u64) -> u32 {
    let mut block = Hasher::new();
    block.update(&PATTERN[..BLOCK]);
    let (mut whole, mut blocks, mut all) = (block, count / BLOCK as u64, Hasher::new());
    // The sum of two equal parts is made from that of one, so that no length takes long.
    while blocks > 0 {
        if blocks % 2 == 1 {
            all.combine(&whole);
        }
        whole.combine(&whole.clone());
        blocks /= 2;
    }
    all.update(&PATTERN[..(count % BLOCK as u64) as usize]);
    all.finalize()
}

/// Reads until `buf` holds a whole HTTP head and returns its length; `None` when the peer ends before it begins.
pub(crate) async fn head(
    stream: &mut (impl AsyncRead + Unpin),
    buf: &mut Vec<u8>,
    limit: usize,
) -> Result<Option<usize>> {
    loop {
        if let Some(end) = memchr::memmem::find(buf, b"\r\n\r\n") {
            return Ok(Some(end + 4));
        }
        if buf.len() > limit {
            bail!("a head of more than {limit} bytes");
        }
        if stream.read_buf(buf).await? == 0 {
            if buf.is_empty() {
                return Ok(None);
            }
            bail!("ended in the middle of a head");
        }
    }
}

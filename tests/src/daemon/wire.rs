//! The daemon's side of the wire: requests read, answers written, in versions 2, 3 and 4, as nrpe's and NSClient++'s sources have
//! it. Shares no line with the product's own packets.

use anyhow::{Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt as _};

const QUERY: u16 = 1;
const RESPONSE: u16 = 2;
const V2_TEXT: usize = 1024;
const V2_HEADER: usize = 10;
const V2_PADDING: usize = 2;
/// What a daemon takes of a request's text; longer ones are dropped.
const MAX_REQUEST: usize = 64 * 1024;

/// A whole request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Packet version.
    pub version: u16,
    /// Text up to the first NUL.
    pub text: Vec<u8>,
}

/// Reads a request; none where a daemon closes without a word: not a query, a wrong checksum, a client that is gone. The
/// version is not judged, but what is no version ends the reading. `all_v2` reads every version as 2.x daemons and NSClient++
/// do, which look at nothing before they have version 2's size. A version 2 request may also have room for `payload` bytes: who
/// sets NSClient++ to another length tells its clients.
///
/// # Errors
/// The connection failed.
pub async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    all_v2: bool,
    payload: Option<usize>,
) -> Result<Option<Request>> {
    let mut packet = vec![0; V2_HEADER];
    if stream.read_exact(&mut packet).await.is_err() {
        return Ok(None);
    }
    let version = u16::from_be_bytes([packet[0], packet[1]]);
    let kind = u16::from_be_bytes([packet[2], packet[3]]);
    if kind != QUERY || !(2..=4).contains(&version) {
        return Ok(None);
    }
    if version == 2 || all_v2 {
        packet.resize(V2_HEADER + V2_TEXT + V2_PADDING, 0);
        stream.read_exact(&mut packet[V2_HEADER..]).await?;
        if version != 2 {
            return Ok(Some(Request { version, text: Vec::new() }));
        }
        if let Some(longer) = payload.filter(|&payload| payload > V2_TEXT)
            && crc_of(&packet, &[]) != stated(&packet)
        {
            let have = packet.len();
            packet.resize(V2_HEADER + longer + V2_PADDING, 0);
            stream.read_exact(&mut packet[have..]).await?;
        }
        let text = up_to_nul(&packet[V2_HEADER..packet.len() - V2_PADDING]);
        return Ok((crc_of(&packet, &[]) == stated(&packet)).then_some(Request { version, text }));
    }
    packet.resize(16, 0);
    stream.read_exact(&mut packet[V2_HEADER..]).await?;
    let length =
        usize::try_from(i32::from_be_bytes([packet[12], packet[13], packet[14], packet[15]])).unwrap_or(usize::MAX);
    if length > MAX_REQUEST {
        bail!("a request of {length} bytes");
    }
    packet.resize(16 + length, 0);
    stream.read_exact(&mut packet[16..]).await?;
    packet[10..12].fill(0);
    let trailer: &[u8] = if version == 3 { &[0; 3] } else { &[] };
    let text = up_to_nul(&packet[16..]);
    Ok((crc_of(&packet, trailer) == stated(&packet)).then_some(Request { version, text }))
}

/// An answer as a daemon of this version sends it: version 2 cuts the text at 1023 bytes and fills its padding with noise,
/// version 3 counts no NUL, version 4 does.
#[must_use]
pub fn answer(version: u16, state: i16, text: &[u8]) -> Vec<u8> {
    if version == 2 {
        return answer_v2(state, text, V2_TEXT);
    }
    let mut body = text.to_vec();
    if version == 4 {
        body.push(0);
    }
    let mut packet = header(version, RESPONSE, state);
    packet.extend_from_slice(&[0; 2]);
    packet.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    packet.extend_from_slice(&body);
    if version == 3 {
        packet.extend_from_slice(&[0; 3]);
    }
    seal(packet)
}

/// A version 2 answer with room for `payload` bytes of text; nrpe has 1024, NSClient++ what its settings say.
#[must_use]
pub fn answer_v2(state: i16, text: &[u8], payload: usize) -> Vec<u8> {
    part_v2(RESPONSE, state, text, payload)
}

/// A version 2 packet of any type: 3 announces another one, as NSClient++ and the Opsview patch do with long output.
#[must_use]
pub fn part_v2(kind: u16, state: i16, text: &[u8], payload: usize) -> Vec<u8> {
    let mut packet = header(2, kind, state);
    packet.extend_from_slice(&text[..text.len().min(payload.saturating_sub(1))]);
    packet.resize(V2_HEADER + payload, 0);
    packet.extend_from_slice(&[0xa5, 0x5a]);
    seal(packet)
}

fn header(version: u16, kind: u16, state: i16) -> Vec<u8> {
    let mut packet = Vec::with_capacity(V2_HEADER + V2_TEXT + V2_PADDING);
    packet.extend_from_slice(&version.to_be_bytes());
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&[0; 4]);
    packet.extend_from_slice(&state.to_be_bytes());
    packet
}

/// Sets the checksum of a packet whose checksum field is zero.
#[must_use]
pub fn seal(mut packet: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&packet);
    packet[4..8].copy_from_slice(&crc.to_be_bytes());
    packet
}

/// Whether a daemon closes without a word because of what the request contains.
#[must_use]
pub fn is_disliked(text: &[u8], arguments: bool) -> bool {
    let nasty = text.iter().any(|byte| b"|`&><'\\[]{};\r\n".contains(byte));
    let rest = text.iter().position(|&byte| byte == b'!').map_or(&[][..], |at| &text[at..]);
    nasty || rest.windows(2).any(|pair| pair == b"$(") || (!arguments && !rest.is_empty())
}

fn crc_of(packet: &[u8], trailer: &[u8]) -> u32 {
    let mut copy = packet.to_vec();
    copy[4..8].fill(0);
    copy.extend_from_slice(trailer);
    crc32fast::hash(&copy)
}

fn stated(packet: &[u8]) -> u32 {
    u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]])
}

fn up_to_nul(text: &[u8]) -> Vec<u8> {
    text.iter().copied().take_while(|&byte| byte != 0).collect()
}

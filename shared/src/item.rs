//! Lists of items (kind, length, bytes), decoded one by one: an item of a kind nobody here knows, or that does not decode, never
//! costs the others. Every list of the protocol and of stored batches has this shape.
//!
//! ```text
//! item = kind u16 | length u32 | bytes          all big-endian
//! ```

use minicbor::Encode;

const HEAD_BYTES: usize = 6;

/// Appends one item to a list.
pub fn push<T: Encode<()>>(list: &mut Vec<u8>, kind: u16, value: &T) {
    let start = list.len();
    list.extend_from_slice(&kind.to_be_bytes());
    list.extend_from_slice(&[0; 4]);
    // Writing into a Vec cannot fail, and none of our types refuses to be encoded.
    let _ = minicbor::encode(value, &mut *list);
    let length = u32::try_from(list.len() - start - HEAD_BYTES).unwrap_or(u32::MAX);
    if let Some(place) = list.get_mut(start + 2..start + HEAD_BYTES) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// The list breaks off in the middle of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the list of items breaks off at byte {0}")]
pub struct Broken(pub usize);

/// Walks a list. After an error nothing more comes: the lengths cannot be trusted any further.
#[derive(Debug)]
pub struct Items<'a> {
    list: &'a [u8],
    at: usize,
}

impl<'a> Items<'a> {
    /// Over a list as [`push`] made it.
    #[must_use]
    pub fn new(list: &'a [u8]) -> Self {
        Self { list, at: 0 }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<(u16, &'a [u8]), Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.list.get(self.at..)?;
        if rest.is_empty() {
            return None;
        }
        let at = self.at;
        self.at = self.list.len();
        let item = rest.split_first_chunk::<2>().and_then(|(kind, rest)| {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            Some((u16::from_be_bytes(*kind), rest.get(..length)?))
        });
        match item {
            Some((kind, bytes)) => {
                self.at = at + HEAD_BYTES + bytes.len();
                Some(Ok((kind, bytes)))
            }
            None => Some(Err(Broken(at))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_kinds_cost_nobody_else() {
        let mut list = Vec::new();
        push(&mut list, 1, &"a");
        push(&mut list, 999, &[1_u8, 2, 3]);
        push(&mut list, 1, &"b");
        let known: Vec<_> = Items::new(&list)
            .map(Result::unwrap)
            .filter(|(kind, _)| *kind == 1)
            .map(|(_, bytes)| minicbor::decode::<&str>(bytes).unwrap())
            .collect();
        assert_eq!(known, ["a", "b"]);
    }

    #[test]
    fn a_list_cut_anywhere_ends_in_one_error() {
        let mut list = Vec::new();
        push(&mut list, 1, &"hello");
        push(&mut list, 2, &"world");
        let whole = list.len() / 2;
        for cut in 1..list.len() {
            let items: Vec<_> = Items::new(&list[..cut]).collect();
            assert_eq!(items.iter().filter(|item| item.is_err()).count(), usize::from(cut != whole), "{cut}");
            assert!(items.len() <= 2);
        }
    }
}

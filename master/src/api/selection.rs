//! Filter, order and page of lists: which items, in which order, from where. Pure. Knows no object: an item says which texts and which
//! rank it has under a field's name. The surprise: a cursor names the place of the last item shown, not a number of items, so that
//! paging neither skips nor repeats what stays in its place while the rest changes.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::api::error::ApiError;
use crate::config::diagnostic::did_you_mean;
use crate::config::glob;

/// Terms of one filter at most; more are refused.
pub(crate) const TERMS_MAX: usize = 32;

/// Something that can be selected.
pub(crate) trait Item {
    /// Names that a filter may use.
    const FILTERS: &'static [&'static str];
    /// Names that an order may use.
    const ORDERS: &'static [&'static str];

    /// The texts a filter's field compares with; several where one has several (groups).
    fn texts(&self, field: &str) -> Vec<Cow<'_, str>>;

    /// The texts that a bare word is looked for in.
    fn words(&self) -> Vec<Cow<'_, str>>;

    /// The place in an order: a number, then a text.
    fn rank(&self, order: &str) -> Rank;

    /// What tells it from every other item.
    fn key(&self) -> String;
}

/// A place in an order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank(pub(crate) i64, pub(crate) String);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    Is { field: String, pattern: String },
    IsNot { field: String, pattern: String },
    Word(String),
}

/// A filter. Terms of the same field with `=` are alternatives; everything else must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter(Vec<Term>);

fn wrong(message: impl Into<String>) -> ApiError {
    ApiError::parameter("filter", message)
}

/// Cuts at white space; double quotes hold together what is between them.
fn words(text: &str) -> Result<Vec<String>, ApiError> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut begun) = (false, false);
    for c in text.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                begun = true;
            }
            c if c.is_whitespace() && !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if quoted {
        return Err(wrong("a quote is opened and never closed"));
    }
    if begun {
        words.push(word);
    }
    Ok(words)
}

impl Filter {
    /// Reads a filter for items of one kind. `allowed` gives the values of fields that have only a few.
    pub(crate) fn parse<T: Item>(text: &str, allowed: fn(&str) -> &'static [&'static str]) -> Result<Self, ApiError> {
        let mut terms = Vec::new();
        for word in words(text)? {
            let Some((left, pattern)) = word.split_once('=') else {
                terms.push(Term::Word(word.to_lowercase()));
                continue;
            };
            let (field, negated) = left.strip_suffix('!').map_or((left, false), |field| (field, true));
            if !T::FILTERS.contains(&field) {
                let hint = did_you_mean(field, T::FILTERS.iter().copied()).unwrap_or_default();
                return Err(wrong(format!("there is no field “{}”; {hint}", field.escape_debug())));
            }
            let values = allowed(field);
            let pattern = if values.is_empty() { pattern.to_owned() } else { spelled(field, pattern, values)? };
            let field = field.to_owned();
            terms.push(if negated { Term::IsNot { field, pattern } } else { Term::Is { field, pattern } });
        }
        if terms.len() > TERMS_MAX {
            return Err(wrong(format!("more than {TERMS_MAX} terms")));
        }
        Ok(Self(terms))
    }

    /// Whether an item fits.
    pub(crate) fn fits<T: Item>(&self, item: &T) -> bool {
        let has = |field: &str, pattern: &str| item.texts(field).iter().any(|text| glob::matches(pattern, text));
        self.0.iter().all(|term| match term {
            Term::IsNot { field, pattern } => !has(field, pattern),
            Term::Is { field, .. } => self.0.iter().any(|other| match other {
                Term::Is { field: same, pattern } => same == field && has(field, pattern),
                Term::IsNot { .. } | Term::Word(_) => false,
            }),
            Term::Word(word) => item.words().iter().any(|text| {
                let text = text.to_lowercase();
                if glob::has_wildcard(word) { glob::matches(word, &text) } else { text.contains(word) }
            }),
        })
    }
}

/// A value of a field that has only a few, in its spelling; patterns pass as they are.
fn spelled(field: &str, pattern: &str, values: &[&'static str]) -> Result<String, ApiError> {
    if glob::has_wildcard(pattern) {
        return Ok(pattern.to_owned());
    }
    if let Some(value) = values.iter().find(|value| value.eq_ignore_ascii_case(pattern)) {
        return Ok((*value).to_owned());
    }
    // A slip is looked for in the values' own spelling.
    let capitals = values.iter().any(|value| value.chars().any(char::is_uppercase));
    let alike = if capitals { pattern.to_uppercase() } else { pattern.to_lowercase() };
    let hint = did_you_mean(&alike, values.iter().copied()).unwrap_or_default();
    Err(wrong(format!("{field} is never “{}”; {hint}", pattern.escape_debug())))
}

/// An order: a field, and whether the greatest comes first. Names always ascend unless a name is what is ordered by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    field: String,
    descending: bool,
}

/// Where an item stands: its rank, then its key.
type Place = (Rank, String);

impl Order {
    /// Reads an order such as `host` or `-last_change`.
    pub(crate) fn parse<T: Item>(text: &str) -> Result<Self, ApiError> {
        let (field, descending) = text.strip_prefix('-').map_or((text, false), |field| (field, true));
        if !T::ORDERS.contains(&field) {
            let hint = did_you_mean(field, T::ORDERS.iter().copied()).unwrap_or_default();
            return Err(ApiError::parameter("sort", format!("cannot sort by “{}”; {hint}", field.escape_debug())));
        }
        Ok(Self { field: field.to_owned(), descending })
    }

    fn compare(&self, (rank, key): &Place, (other_rank, other_key): &Place) -> Ordering {
        let ranks = rank.cmp(other_rank);
        let ranks = if self.descending { ranks.reverse() } else { ranks };
        ranks.then_with(|| key.cmp(other_key))
    }
}

/// One page of a list.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Items that fit, on all pages.
    pub(crate) total: usize,
    /// The cursor of the next page.
    pub(crate) next: Option<String>,
}

/// Orders the items that fit and takes `limit` behind the cursor.
pub(crate) fn page<T: Item>(
    items: impl Iterator<Item = T>,
    filter: &Filter,
    order: &Order,
    cursor: Option<&str>,
    limit: usize,
) -> Result<Page<T>, ApiError> {
    let after = cursor.map(read_cursor).transpose()?;
    let mut placed: Vec<(Place, T)> =
        items.filter(|item| filter.fits(item)).map(|item| ((item.rank(&order.field), item.key()), item)).collect();
    let total = placed.len();
    if let Some(after) = after {
        placed.retain(|(place, _)| order.compare(place, &after).is_gt());
    }
    placed.sort_by(|(place, _), (other, _)| order.compare(place, other));
    let more = placed.len() > limit;
    placed.truncate(limit);
    let next = placed.last().filter(|_| more).map(|(place, _)| write_cursor(place));
    Ok(Page { items: placed.into_iter().map(|(_, item)| item).collect(), total, next })
}

/// A cursor is `rank.text.key`, texts as hexadecimal: it passes through any URL unchanged.
fn write_cursor((Rank(number, text), key): &Place) -> String {
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("{number}.{}.{}", hex(text), hex(key))
}

fn read_cursor(cursor: &str) -> Result<Place, ApiError> {
    let text = |hex: &str| {
        if !hex.len().is_multiple_of(2) {
            return None;
        }
        let digits = hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        String::from_utf8(digits.collect::<Option<Vec<u8>>>()?).ok()
    };
    let read = || {
        let (number, rest) = cursor.split_once('.')?;
        let (rank, key) = rest.split_once('.')?;
        Some((Rank(number.parse().ok()?, text(rank)?), text(key)?))
    };
    read().ok_or_else(|| ApiError::parameter("cursor", "this is no cursor: give the `next` of an earlier answer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fruit(&'static str, &'static str, i64);

    impl Item for Fruit {
        const FILTERS: &'static [&'static str] = &["name", "colour"];
        const ORDERS: &'static [&'static str] = &["name", "weight"];
        fn texts(&self, field: &str) -> Vec<Cow<'_, str>> {
            vec![Cow::Borrowed(if field == "name" { self.0 } else { self.1 })]
        }
        fn words(&self) -> Vec<Cow<'_, str>> {
            vec![Cow::Borrowed(self.0)]
        }
        fn rank(&self, order: &str) -> Rank {
            if order == "weight" { Rank(self.2, String::new()) } else { Rank(0, self.0.to_owned()) }
        }
        fn key(&self) -> String {
            self.0.to_owned()
        }
    }

    fn few(field: &str) -> &'static [&'static str] {
        if field == "colour" { &["RED", "GREEN"] } else { &[] }
    }

    const FRUIT: [Fruit; 5] = [
        Fruit("apple", "RED", 5),
        Fruit("big pear", "GREEN", 7),
        Fruit("cherry", "RED", 1),
        Fruit("apple small", "GREEN", 5),
        Fruit("date", "RED", 5),
    ];

    fn chosen(filter: &str) -> Vec<&'static str> {
        let filter = Filter::parse::<Fruit>(filter, few).unwrap();
        FRUIT.into_iter().filter(|fruit| filter.fits(fruit)).map(|fruit| fruit.0).collect()
    }

    #[test]
    fn terms_narrow_and_terms_of_one_field_widen() {
        assert_eq!(chosen(""), ["apple", "big pear", "cherry", "apple small", "date"]);
        assert_eq!(chosen("colour=red"), ["apple", "cherry", "date"]);
        assert_eq!(chosen("colour=red name!=apple*"), ["cherry", "date"]);
        assert_eq!(chosen("name=cherry name=date"), ["cherry", "date"]);
        assert_eq!(chosen("name=\"big pear\""), ["big pear"]);
        assert_eq!(chosen("APPLE colour=green"), ["apple small"]);
        assert_eq!(chosen("p*l"), Vec::<&str>::new());
        assert_eq!(chosen("a*e"), ["apple"]);
    }

    #[test]
    fn what_cannot_be_meant_is_named_with_what_can() {
        let message = |filter: &str| Filter::parse::<Fruit>(filter, few).unwrap_err().message;
        assert!(message("color=red").contains("did you mean `colour`?"), "{}", message("color=red"));
        assert!(message("colour=grene").contains("did you mean `GREEN`?"), "{}", message("colour=grene"));
        assert!(message("name=\"x").contains("never closed"));
        assert!(message(&"x ".repeat(TERMS_MAX + 1)).contains("32"));
        assert!(Order::parse::<Fruit>("-wight").unwrap_err().message.contains("`weight`"));
    }

    #[test]
    fn pages_join_without_hole_or_repetition_whatever_the_order_and_size() {
        for order in ["name", "-name", "weight", "-weight"] {
            let order = Order::parse::<Fruit>(order).unwrap();
            let whole = page(FRUIT.into_iter(), &Filter::default(), &order, None, 9).unwrap();
            assert_eq!((whole.total, whole.next), (5, None));
            let whole: Vec<_> = whole.items.iter().map(|fruit| fruit.0).collect();
            for limit in 1..5 {
                let (mut joined, mut cursor) = (Vec::new(), None::<String>);
                loop {
                    let part = page(FRUIT.into_iter(), &Filter::default(), &order, cursor.as_deref(), limit).unwrap();
                    assert_eq!(part.total, 5);
                    joined.extend(part.items.iter().map(|fruit| fruit.0));
                    cursor = part.next;
                    if cursor.is_none() {
                        break;
                    }
                }
                assert_eq!(joined, whole, "{order:?} by {limit}");
            }
        }
        let heaviest =
            page(FRUIT.into_iter(), &Filter::default(), &Order::parse::<Fruit>("-weight").unwrap(), None, 2).unwrap();
        assert_eq!(heaviest.items.iter().map(|fruit| fruit.0).collect::<Vec<_>>(), ["big pear", "apple"]);
    }

    #[test]
    fn a_cursor_that_nobody_gave_is_refused() {
        for cursor in ["", "1", "1.2", "x.61.61", "1.6.61", "1.zz.61", "1.ff.61", "1.61.\u{e9}"] {
            assert!(read_cursor(cursor).is_err(), "{cursor}");
        }
        let place = (Rank(-5, "a".to_owned()), "straße!x".to_owned());
        assert_eq!(read_cursor(&write_cursor(&place)), Ok(place));
    }
}

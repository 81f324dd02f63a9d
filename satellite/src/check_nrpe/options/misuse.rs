//! Wrong use of the command line, and how it is said: the lines of `getopt_long` as they are, and a first line that says what is
//! wrong, which check_nrpe's has not. Pure.

/// What is wrong, and what was complained about before that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misuse {
    /// Lines of `getopt_long`, for standard error.
    pub complaints: Vec<String>,
    /// What is wrong.
    pub reason: String,
    /// Whether check_nrpe says nothing but this, and shows no usage.
    pub bare: bool,
}

impl Misuse {
    /// Wrong use, to be followed by the usage.
    #[must_use]
    pub fn new(reason: &str) -> Self {
        Self { complaints: Vec::new(), reason: reason.to_owned(), bare: false }
    }

    /// Wrong use of which check_nrpe says nothing but this.
    #[must_use]
    pub fn bare(reason: &str) -> Self {
        Self { bare: true, ..Self::new(reason) }
    }

    /// The same, after these complaints.
    #[must_use]
    pub fn after(mut self, complaints: &[String]) -> Self {
        self.complaints = complaints.to_vec();
        self
    }
}

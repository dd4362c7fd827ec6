//! Variables: which ones there are, and what each form gives.
use super::*;

//! Errors.
use super::*;

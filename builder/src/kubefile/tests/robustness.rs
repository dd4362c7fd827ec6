//! Robustness.
use super::*;

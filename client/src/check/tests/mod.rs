//! Do the checkers accept exactly the legal histories?

mod brute;
mod large;
mod small;
mod toy;
mod versions;

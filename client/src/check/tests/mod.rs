//! Do the checkers accept exactly the legal histories?

mod brute;
mod kept;
mod large;
mod small;
mod toy;
mod versions;

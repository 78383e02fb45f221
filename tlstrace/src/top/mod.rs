//! `tlstrace top`: the screen.
//!
//! ```text
//! source (live, capture, saved lines) ▶ Board ▶ State ▶ Model ▶ render(Model, View) ▶ terminal
//!                                                  keys ▶ View ┘
//! ```
//!
//! [`State`] takes verdicts in and is bounded; a [`Model`] is one moment of it, and a [`View`] what the user chose to
//! see of that. Those and [`render()`] are pure; [`screen`] is the terminal, [`board`] what threads share.

pub mod board;
pub mod model;
mod render;
pub mod screen;
pub mod series;
mod state;
mod text;
mod view;

pub use model::Model;
pub use render::render;
pub use state::State;
pub use view::{Action, Page, Pane, Sort, View};

#[cfg(test)]
mod tests;

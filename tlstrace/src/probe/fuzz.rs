//! Fuzz body of what an endpoint may answer.

use super::answer::{Answer, AnswerReader, Refusal};
use crate::fuzz::{Input, pieces};

/// An answer says the same wherever it is cut.
pub(crate) fn answer(data: &[u8]) {
    let mut input = Input::new(data);
    let seed = input.u32();
    let bytes = input.rest();
    let whole = read([bytes].into_iter());
    let cut = read(pieces(bytes, seed).into_iter());
    match (&whole, &cut) {
        // How much there is of a first record that is none depends on how much came at once.
        (Err(Refusal::NotTls { .. } | Refusal::Closed), Err(Refusal::NotTls { .. } | Refusal::Closed)) => {}
        _ => assert_eq!(whole, cut),
    }
    if let Err(refusal) = whole {
        assert!(refusal.to_string().chars().all(|character| !character.is_control()));
    }
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Answer {
    let mut reader = AnswerReader::default();
    for piece in pieces {
        if let Some(answer) = reader.feed(piece) {
            return answer;
        }
    }
    reader.end(Refusal::Closed)
}

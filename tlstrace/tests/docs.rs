//! `docs/verdicts.md` is generated from the rules: `UPDATE_DOCS=1 cargo test -p tlstrace --test docs` writes it.

use std::fs;
use std::path::Path;

use tlstrace::verdict::explain;

#[test]
fn the_page_of_verdicts_says_what_the_program_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/verdicts.md");
    let page = explain::markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/verdicts.md is stale: UPDATE_DOCS=1 cargo test -p tlstrace --test docs");
}

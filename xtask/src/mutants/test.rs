
#[test]
fn mutants() {
    use std::sync::atomic::Ordering;
    use tlstrace::mutants::MUTANT;

    let scenarios = scenarios();
    let is_noticed = || {
        scenarios.iter().any(|(_, scenario)| {
            let verdicts = std::panic::catch_unwind(|| play(scenario, Variation::AsWritten, None));
            verdicts.is_err() || verdicts.is_ok_and(|verdicts| check(&scenario.expect, &verdicts).is_err())
        })
    };
    assert!(!is_noticed(), "the scenarios fail as it is");
    std::panic::set_hook(Box::new(|_| {}));
    let conditions: Vec<_> = include_str!("mutants.txt").lines().collect();
    let mut survivors = 0;
    for mutant in 1..=2 * conditions.len() {
        MUTANT.store(mutant, Ordering::Relaxed);
        if !is_noticed() {
            survivors += 1;
            let forced = if mutant % 2 == 1 { "true" } else { "false" };
            println!("{forced:5} {}", conditions[(mutant - 1) / 2]);
        }
    }
    println!("{survivors} of {} mutants were not noticed", 2 * conditions.len());
}

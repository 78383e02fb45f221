
#[test]
fn mutants() {
    use std::sync::atomic::Ordering;
    use tlstrace::mutants::MUTANT;

    /// What the scenarios say to a mutant.
    #[derive(Clone, Copy, Eq, PartialEq)]
    enum Outcome {
        Noticed,
        /// Some verdict reads differently, and no scenario minds.
        Unexpected,
        /// No verdict differs.
        Idle,
    }
    let scenarios = scenarios();
    let published = |verdicts: &[Verdict]| {
        let parts = |verdict: &Verdict| {
            let text = (verdict.summary.clone(), verdict.evidence.clone(), verdict.warnings.clone());
            let Verdict { id, severity, blame, confidence, reason, ended_by, revision, .. } = *verdict;
            (id, severity, blame, confidence, reason, ended_by, revision, text, verdict.alternatives.clone())
        };
        verdicts.iter().map(parts).collect::<Vec<_>>()
    };
    let usual: Vec<_> = scenarios
        .iter()
        .map(|(path, scenario)| {
            let verdicts = play(scenario, Variation::AsWritten, None);
            check(&scenario.expect, &verdicts).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
            published(&verdicts)
        })
        .collect();
    let play_all = || {
        let mut outcome = Outcome::Idle;
        for ((_, scenario), usual) in scenarios.iter().zip(&usual) {
            let verdicts = std::panic::catch_unwind(|| play(scenario, Variation::AsWritten, None));
            let Ok(verdicts) = verdicts else { return Outcome::Noticed };
            if published(&verdicts) != *usual {
                if check(&scenario.expect, &verdicts).is_err() {
                    return Outcome::Noticed;
                }
                outcome = Outcome::Unexpected;
            }
        }
        outcome
    };
    std::panic::set_hook(Box::new(|_| {}));
    let conditions: Vec<_> = include_str!("mutants.txt").lines().collect();
    let outcomes: Vec<_> = (1..=2 * conditions.len())
        .map(|mutant| {
            MUTANT.store(mutant, Ordering::Relaxed);
            (mutant, play_all())
        })
        .collect();
    let list = |kind: &str, what: Outcome, title: &str| {
        let unnoticed: Vec<_> = outcomes
            .iter()
            .filter(|(_, outcome)| *outcome == what)
            .map(|(mutant, _)| (mutant % 2 == 1, conditions[(mutant - 1) / 2]))
            .filter_map(|(forced, place)| Some((forced, place.strip_prefix(kind)?.trim_start())))
            .collect();
        println!("\n{} {title}", unnoticed.len());
        for (forced, place) in &unnoticed {
            println!("{forced:5} {place}");
        }
        unnoticed.len()
    };
    list("other", Outcome::Idle, "others change no verdict of any scenario");
    list("other", Outcome::Unexpected, "others change what no scenario expects");
    let untested = list("main", Outcome::Idle, "main conditions change no verdict of any scenario")
        + list("main", Outcome::Unexpected, "main conditions change what no scenario expects");
    let main = conditions.iter().filter(|place| place.starts_with("main")).count();
    let unnoticed = outcomes.iter().filter(|(_, outcome)| *outcome != Outcome::Noticed).count();
    println!(
        "\n{unnoticed} of {} mutants were not noticed, {untested} of {} of main conditions",
        2 * conditions.len(),
        2 * main
    );
    assert_eq!(untested, 0, "rules keep silent under conditions that no scenario tests");
}

//! What is said about interfaces that come and go: at once where little happens, folded where pods churn.

use std::collections::BTreeSet;
use std::time::Duration;

/// What became of an interface that is or was to be watched.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Turn {
    /// It is watched from now on.
    Came(String),
    Gone(String),
    /// It went up or down, and is watched all the same.
    State {
        name: String,
        is_up: bool,
    },
    /// It cannot be watched, for a reason in words.
    Refused(String),
}

/// Collects [`Turn`]s until it is time to say something.
#[derive(Debug, Default)]
pub struct Turnover {
    came: BTreeSet<String>,
    gone: BTreeSet<String>,
    /// Came and went before anything was said.
    passed: u64,
    up: BTreeSet<String>,
    down: BTreeSet<String>,
    refused: BTreeSet<String>,
    /// When something was said last.
    said: Option<Duration>,
    /// How long to keep silent after that. It grows while interfaces churn.
    pause: Duration,
}

impl Turnover {
    /// Shortest and longest time between two reports.
    const SHORTEST_PAUSE: Duration = Duration::from_secs(2);
    const LONGEST_PAUSE: Duration = Duration::from_mins(1);
    /// Most names in one line.
    const MAX_NAMES: usize = 6;
    /// Most names that are remembered of a kind.
    const MAX_KEPT: usize = 1024;

    pub fn note(&mut self, turn: Turn) {
        log::info!("interfaces: {turn:?}");
        let (set, text) = match turn {
            Turn::Came(name) => {
                if self.gone.remove(&name) {
                    return;
                }
                (&mut self.came, name)
            }
            Turn::Gone(name) => {
                self.up.remove(&name);
                self.down.remove(&name);
                if self.came.remove(&name) {
                    self.passed += 1;
                    return;
                }
                (&mut self.gone, name)
            }
            Turn::State { name, is_up } => {
                // What has just come goes up as a matter of course.
                if self.came.contains(&name) {
                    return;
                }
                let (to, from) =
                    if is_up { (&mut self.up, &mut self.down) } else { (&mut self.down, &mut self.up) };
                if from.remove(&name) {
                    return;
                }
                (to, name)
            }
            Turn::Refused(reason) => (&mut self.refused, reason),
        };
        if set.len() < Self::MAX_KEPT {
            set.insert(text);
        }
    }

    /// What to say at `now` (time since the start): nothing, if the last report was a moment ago.
    pub fn say(&mut self, now: Duration) -> Vec<String> {
        let passed = self.said.map_or(Duration::MAX, |said| now.saturating_sub(said));
        if passed < self.pause {
            return Vec::new();
        }
        let lines = self.say_all();
        if !lines.is_empty() {
            let is_churning = passed < 2 * self.pause;
            let pause = if is_churning { 2 * self.pause } else { Duration::ZERO };
            self.pause = pause.clamp(Self::SHORTEST_PAUSE, Self::LONGEST_PAUSE);
            self.said = Some(now);
        }
        lines
    }

    /// What has not been said yet.
    pub fn say_all(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut say = |names: &mut BTreeSet<String>, one: fn(&str) -> String, many: &str| match names.len() {
            0 => {}
            1 => lines.push(one(&list(names))),
            count => lines.push(many.replace('N', &count.to_string()) + &list(names)),
        };
        say(&mut self.came, |name| format!("watching {name} too"), "watching N more interfaces: ");
        say(&mut self.gone, |name| format!("{name} is gone"), "N interfaces are gone: ");
        say(&mut self.up, |name| format!("{name} is up"), "N interfaces are up: ");
        say(&mut self.down, |name| format!("{name} went down"), "N interfaces went down: ");
        lines.append(&mut std::mem::take(&mut self.refused).into_iter().take(Self::MAX_NAMES).collect());
        match std::mem::take(&mut self.passed) {
            0 => {}
            1 => lines.push("1 interface came and went".to_owned()),
            count => lines.push(format!("{count} interfaces came and went")),
        }
        lines
    }
}

/// Takes the names; those that are too many are counted.
fn list(names: &mut BTreeSet<String>) -> String {
    let names = std::mem::take(names);
    let shown: Vec<_> = names.iter().take(Turnover::MAX_NAMES).map(String::as_str).collect();
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_single_change_is_told_at_once() {
        let mut turnover = Turnover::default();
        turnover.note(Turn::Came("gke1".to_owned()));
        assert_eq!(turnover.say(seconds(5)), ["watching gke1 too"]);
        assert!(turnover.say(seconds(9)).is_empty(), "and once");
    }

    #[test]
    fn changes_that_follow_are_folded_and_what_came_and_went_is_counted() {
        let mut turnover = Turnover::default();
        turnover.note(Turn::Came("a".to_owned()));
        assert_eq!(turnover.say(seconds(0)).len(), 1);
        for pod in 0..200 {
            turnover.note(Turn::Came(format!("veth{pod:03}")));
            turnover.note(Turn::State { name: format!("veth{pod:03}"), is_up: true });
            if pod < 190 {
                turnover.note(Turn::Gone(format!("veth{pod:03}")));
            }
        }
        assert!(turnover.say(seconds(1)).is_empty());
        assert_eq!(
            turnover.say(seconds(2)),
            [
                "watching 10 more interfaces: veth190, veth191, veth192, veth193, veth194, veth195 and 4 more",
                "190 interfaces came and went",
            ]
        );
    }

    #[test]
    fn the_longer_interfaces_churn_the_less_is_said_and_calm_makes_it_prompt_again() {
        let mut turnover = Turnover::default();
        let mut told = Vec::new();
        for second in 0..200 {
            turnover.note(Turn::Came(format!("veth{second}")));
            if !turnover.say(seconds(second)).is_empty() {
                told.push(second);
            }
        }
        assert_eq!(told, [0, 2, 6, 14, 30, 62, 122, 182]);
        turnover.say(seconds(250));
        turnover.note(Turn::Came("late".to_owned()));
        assert_eq!(turnover.say(seconds(400)), ["watching late too"]);
        turnover.note(Turn::Gone("late".to_owned()));
        assert_eq!(turnover.say(seconds(402)), ["late is gone"]);
    }

    #[test]
    fn a_refusal_is_told_once_however_often_it_happens() {
        let mut turnover = Turnover::default();
        for _ in 0..50 {
            turnover.note(Turn::Refused("cannot attach".to_owned()));
        }
        assert_eq!(turnover.say(seconds(0)), ["cannot attach"]);
    }

    #[test]
    fn up_and_down_again_is_nothing() {
        let mut turnover = Turnover::default();
        turnover.note(Turn::State { name: "eth0".to_owned(), is_up: false });
        turnover.note(Turn::State { name: "eth0".to_owned(), is_up: true });
        assert!(turnover.say(seconds(0)).is_empty());
    }
}

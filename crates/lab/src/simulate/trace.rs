//! Traces: which jobs were submitted when, by whom, and how long they ran, as CSV.

use std::collections::BTreeMap;

use crate::person::PersonId;

/// The first line of a trace.
const HEADER: &str = "submit_s,duration_s,chips,person";

/// Longest time that makes sense, in seconds: thirty years.
const LONGEST_S: f64 = 1e9;

/// Something to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// When it was asked for, in milliseconds.
    pub submitted: u64,
    /// Milliseconds that it would run without a pause.
    pub runs_ms: u64,
    /// Chips that it needs at once.
    pub chips: u32,
    /// Whose it is.
    pub person: PersonId,
}

/// Jobs in the order of their submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// What their people are called; person 0 first.
    pub people: Vec<String>,
}

impl Trace {
    /// Reads a CSV file with the columns `submit_s,duration_s,chips,person`, for so many chips.
    ///
    /// # Errors
    /// A sentence that names the line which can't be read, or whose job needs more chips than there are.
    pub fn parse(text: &str, chips: u32) -> Result<Trace, String> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let header = lines.next().map_or("", |(_, line)| line.trim_start_matches('\u{feff}').trim());
        if header != HEADER {
            return Err(format!("the first line of a trace is {HEADER}; put it there, with a job on each line below"));
        }
        let mut people: BTreeMap<&str, PersonId> = BTreeMap::new();
        let mut names = Vec::new();
        let mut jobs = Vec::new();
        for (at, line) in lines {
            let mut job = || {
                let fields: Vec<&str> = line.split(',').map(str::trim).collect();
                let [submitted, runs, wants, name] = fields[..] else {
                    return Err(format!("has {} values instead of 4", fields.len()));
                };
                if name.is_empty() {
                    return Err("names no person".into());
                }
                let person = *people.entry(name).or_insert_with(|| {
                    names.push(name.to_string());
                    PersonId(names.len() as u32 - 1)
                });
                let (submitted, runs_ms) = (milliseconds("submit_s", submitted)?, milliseconds("duration_s", runs)?);
                if runs_ms == 0 {
                    return Err("has a job that runs for no time".into());
                }
                match wants.parse() {
                    Ok(wants @ 1..) if wants <= chips => Ok(Job { submitted, runs_ms, chips: wants, person }),
                    Ok(wants @ 1..) => Err(format!("has a job that needs {wants} chips, and there are {chips}")),
                    _ => Err(format!("has {wants:?} as chips, which is not a number from 1")),
                }
            };
            let put_right = |why| format!("line {} {why}; put it right, or take the line out", at + 1);
            jobs.push(job().map_err(put_right)?);
        }
        if jobs.is_empty() {
            return Err("the trace has no jobs; put one on each line below the first".into());
        }
        jobs.sort_by_key(|job: &Job| job.submitted);
        Ok(Trace { jobs, people: names })
    }
}

fn milliseconds(what: &str, text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=LONGEST_S).contains(&seconds) => Ok((seconds * 1000.0).round() as u64),
        _ => Err(format!("has {text:?} as {what}, which is not a number of seconds from 0 to {LONGEST_S:.0}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let good = Trace::parse("submit_s,duration_s,chips,person\n\n 60, 1.5 ,2,Ben\n0,10,1,Ada\n", 2).unwrap();
        assert_eq!(good.people, ["Ben", "Ada"]);
        assert_eq!(good.jobs[1], Job { submitted: 60_000, runs_ms: 1500, chips: 2, person: PersonId(0) });
        for (rows, said) in [
            ("", "no jobs"),
            ("1,2,3", "line 2 has 3 values instead of 4"),
            ("0,1,1,Ada\nx,1,1,Ada", "line 3 has \"x\" as submit_s"),
            ("0,-1,1,Ada", "line 2 has \"-1\" as duration_s"),
            ("0,nan,1,Ada", "line 2 has \"nan\" as duration_s"),
            ("0,0,1,Ada", "line 2 has a job that runs for no time"),
            ("0,1,0,Ada", "line 2 has \"0\" as chips"),
            ("0,1,3,Ada", "line 2 has a job that needs 3 chips, and there are 2"),
            ("0,1,1,", "line 2 names no person"),
        ] {
            let why = Trace::parse(&format!("{HEADER}\n{rows}\n"), 2).unwrap_err();
            assert!(why.contains(said), "{why}");
        }
        assert!(Trace::parse("a,b\n", 2).unwrap_err().contains(HEADER));
    }
}

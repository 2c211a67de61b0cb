use crate::{
    figures::float,
    report::{Budget, Row, Section},
    system::Part,
};

/// What section 11 of the design asks for, in MiB.
const BUDGET_MIB: f64 = 100.0;

/// Holds the services' memory to the budget: the most over all sections, each with its service.
pub(super) fn judge(sections: &mut [Section]) {
    let rows: Vec<_> = [Part::Api, Part::Publisher, Part::Worker]
        .into_iter()
        .filter_map(|part| row(sections, part))
        .collect();
    if let Some(last) = sections.last_mut() {
        last.rows.extend(rows);
    }
}

fn row(sections: &[Section], part: Part) -> Option<Row> {
    let peaks = sections.iter().filter_map(|section| {
        let kib = section.memory_kib.get(&part)?;
        Some((*kib, &section.name))
    });
    let (kib, section) = peaks.max()?;
    let what = format!("memory of the {}, most of all sections", part.name());
    let budget = Budget::AtMost(BUDGET_MIB);
    let row = Row::new(what, float(kib) / 1_024.0, " MiB", budget);
    Some(row.with(&format!("({section})")))
}

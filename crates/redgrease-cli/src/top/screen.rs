//! The screen of `top`: a pure function of what was read to a buffer of cells.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row as TableRow, Table, Widget};

use super::snapshot::{Row, Snapshot};
use crate::listing::millis;
use crate::output::{counted, one_line};
use crate::units::show_bytes;

/// Lines above the lists, and the line with the keys below them.
const HEADER: u16 = 3;
const FOOTER: u16 = 1;
/// Lines of a list besides its rows: title, heading, and a blank line before the next one.
const AROUND: u16 = 3;
/// Rows of workers and executions that are shown if registrations need the space.
const ROWS_RESERVED: u16 = 5;

/// What is drawn.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub now: &'a Snapshot,
    /// An earlier snapshot, for rates.
    pub before: Option<&'a Snapshot>,
    /// A line in place of the keys.
    pub notice: Option<&'a str>,
    pub is_coloured: bool,
}

/// The height at which nothing is left out.
pub fn full_height(now: &Snapshot) -> u16 {
    let rows = now.workers.len() + now.executions.len() + now.registrations.len();
    u16::try_from(rows).unwrap_or(u16::MAX / 2) + HEADER + FOOTER + 3 * AROUND
}

/// The screen, in an area of this size.
pub fn draw(view: &View<'_>, area: Rect) -> Buffer {
    let mut buffer = Buffer::empty(area);
    let now = view.now;
    let counts = [now.workers.len(), now.executions.len(), now.registrations.len()];
    let [workers, executions, registrations] = heights(counts, area.height.saturating_sub(HEADER + FOOTER));
    let parts = [HEADER, workers, executions, registrations].map(Constraint::Length);
    let [header, workers, executions, registrations, _, footer] =
        Layout::vertical(parts.into_iter().chain([Constraint::Fill(1), Constraint::Length(FOOTER)])).areas(area);
    draw_header(view, header, &mut buffer);
    view.list(workers_list(now), workers, &mut buffer);
    view.list(executions_list(now), executions, &mut buffer);
    view.list(view.registrations_list(), registrations, &mut buffer);
    let keys = view.notice.unwrap_or("q quit  p pause");
    Line::styled(keys.to_owned(), view.style(Style::new().add_modifier(Modifier::DIM))).render(footer, &mut buffer);
    buffer
}

/// The heights of the three lists: of workers and executions a few rows, of registrations all that is left.
fn heights(counts: [usize; 3], available: u16) -> [u16; 3] {
    let full = counts.map(|count| u16::try_from(count).unwrap_or(u16::MAX / 4).saturating_add(AROUND));
    if full.iter().map(|&height| u32::from(height)).sum::<u32>() <= u32::from(available) {
        return full;
    }
    let [workers, executions] = [full[0], full[1]].map(|height| height.min(ROWS_RESERVED + AROUND));
    let registrations = full[2].min(available.saturating_sub(workers + executions));
    // What registrations do not need is for executions.
    let executions = full[1].min(available.saturating_sub(workers + registrations)).max(executions);
    [workers, executions, registrations]
}

fn draw_header(view: &View<'_>, area: Rect, buffer: &mut Buffer) {
    let now = view.now;
    let running = now.executions.iter().filter(|row| row.state == "running").count();
    let waiting = now.executions.iter().filter(|row| row.state == "created").count();
    let bold = view.style(Style::new().add_modifier(Modifier::BOLD));
    let lines = [
        Line::styled(format!("redgrease top  {}  {}  up {}", now.place, now.server, time(now.uptime_s)), bold),
        Line::raw(format!(
            "{} ({} died)  {}, peak {}  {} ({} wait)  {running} run, {waiting} wait  {} ({})",
            counted(now.workers.len() as u64, "worker", "workers"),
            now.workers_died,
            show_bytes(now.bytes_now),
            show_bytes(now.bytes_peak),
            counted(now.sessions, "session", "sessions"),
            now.sessions_waiting,
            counted(now.events_pending, "event waits", "events wait"),
            show_bytes(now.events_bytes),
        )),
    ];
    for (line, row) in lines.into_iter().zip(area.rows()) {
        line.render(row, buffer);
    }
}

/// `42 s`, `3 min`, `2 h`, `5 d`.
fn time(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A list of the screen.
struct List {
    title: &'static str,
    columns: Vec<(&'static str, Constraint)>,
    rows: Vec<Vec<String>>,
    /// Indexes of rows that show a problem.
    bad: Vec<usize>,
}

fn workers_list(now: &Snapshot) -> List {
    let columns = vec![
        (" WORKER", Constraint::Length(7)),
        ("     PID", Constraint::Length(8)),
        ("SESSIONS", Constraint::Length(8)),
        ("  SERVED", Constraint::Length(8)),
        ("     RSS", Constraint::Length(8)),
        ("PEAK RSS", Constraint::Length(8)),
        ("ISOLATION", Constraint::Fill(1)),
    ];
    let row = |worker: &crate::info::Worker| {
        vec![
            format!("{:>7}", worker.number),
            format!("{:>8}", worker.pid),
            format!("{:>8}", worker.sessions),
            format!("{:>8}", worker.served),
            format!("{:>8}", show_bytes(worker.rss_bytes)),
            format!("{:>8}", show_bytes(worker.peak_rss_bytes)),
            worker.isolation.clone(),
        ]
    };
    List { title: "workers", columns, rows: now.workers.iter().map(row).collect(), bad: Vec::new() }
}

fn executions_list(now: &Snapshot) -> List {
    let columns = vec![
        ("             ID", Constraint::Length(15)),
        ("STATE", Constraint::Length(8)),
        ("STARTED BY", Constraint::Fill(1)),
    ];
    let rows =
        now.executions.iter().map(|row| vec![format!("{:>15}", row.id), row.state.clone(), row.started_by.clone()]);
    List { title: "executions", columns, rows: rows.collect(), bad: Vec::new() }
}

impl View<'_> {
    fn registrations_list(&self) -> List {
        let rows = &self.now.registrations;
        let width = rows.iter().map(|row| row.id.len()).max().unwrap_or_default().max(8);
        let columns = vec![
            ("      ID", Constraint::Length(width as u16)),
            ("FIRES FOR", Constraint::Fill(2)),
            ("MODE", Constraint::Length(11)),
            ("    RUNS", Constraint::Length(8)),
            ("   RUN/s", Constraint::Length(8)),
            (" MEAN ms", Constraint::Length(8)),
            (" LAST ms", Constraint::Length(8)),
            ("  LAG ms", Constraint::Length(8)),
            ("FAILED", Constraint::Length(6)),
            ("LAST ERROR", Constraint::Fill(2)),
        ];
        let bad = (0..rows.len()).filter(|&index| rows[index].failed > 0).collect();
        List {
            title: "registrations",
            columns,
            rows: rows.iter().map(|row| self.registration(row, width)).collect(),
            bad,
        }
    }

    fn registration(&self, row: &Row, id_width: usize) -> Vec<String> {
        let recent = self.before.and_then(|before| {
            let earlier = before.registrations.iter().find(|earlier| earlier.id == row.id)?;
            row.since(earlier, self.now.at.saturating_sub(before.at))
        });
        let ms = |time: Option<Duration>| format!("{:>8}", time.map_or(String::new(), millis));
        vec![
            format!("{:>id_width$}", row.id),
            row.source.clone(),
            row.mode.clone(),
            format!("{:>8}", row.triggered),
            format!("{:>8}", recent.map_or(String::new(), |(rate, _)| format!("{rate:.1}"))),
            ms(recent.and_then(|(_, mean)| mean)),
            ms(row.last_run),
            ms(row.lag),
            format!("{:>6}", row.failed),
            row.last_error.clone(),
        ]
    }

    fn list(&self, list: List, area: Rect, buffer: &mut Buffer) {
        let [title, body] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
        let space = usize::from(body.height.saturating_sub(AROUND - 1));
        let count = list.rows.len();
        let left_out = count.saturating_sub(space);
        let more = if left_out > 0 { format!(", {left_out} of them not shown") } else { String::new() };
        let bold = self.style(Style::new().add_modifier(Modifier::BOLD));
        Line::styled(format!("{}{more}", counted(count as u64, list.title.trim_end_matches('s'), list.title)), bold)
            .render(title, buffer);
        if count == 0 {
            return;
        }
        let cell = |text: String| Cell::from(one_line(&text));
        let rows = list.rows.into_iter().take(space).enumerate().map(|(index, row)| {
            let style = if list.bad.contains(&index) { Style::new().fg(Color::Red) } else { Style::new() };
            TableRow::new(row.into_iter().map(cell)).style(self.style(style))
        });
        let heading = TableRow::new(list.columns.iter().map(|(name, _)| *name));
        Table::new(rows, list.columns.iter().map(|(_, width)| *width))
            .header(heading.style(self.style(Style::new().fg(Color::Cyan))))
            .column_spacing(2)
            .render(body, buffer);
    }

    fn style(&self, style: Style) -> Style {
        if self.is_coloured { style } else { Style::new() }
    }
}

/// The lines of a buffer, without blanks at their ends and blank lines at the end.
pub fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let lines = buffer.content.chunks(width).map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
    let lines: Vec<String> = lines.map(|line| line.trim_end().to_owned()).collect();
    let shown = lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
    lines[..shown].iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::snapshot::Execution;
    use super::*;
    use crate::info::Worker;

    fn snapshot(seconds: u64, triggered: u64) -> Snapshot {
        let worker = Worker {
            number: 1,
            pid: 4711,
            sessions: 2,
            served: 30,
            rss_bytes: 17_000_000,
            peak_rss_bytes: 20_000_000,
            isolation: "landlock seccomp".to_owned(),
        };
        let execution = |id: &str, state: &str| Execution {
            id: id.to_owned(),
            state: state.to_owned(),
            started_by: "client".to_owned(),
        };
        let trigger = Row {
            id: "1".to_owned(),
            source: "trigger visit".to_owned(),
            mode: "async".to_owned(),
            triggered,
            failed: 1,
            total_run: Duration::from_millis(2 * triggered),
            last_run: Some(Duration::from_millis(3)),
            lag: None,
            last_error: "KeyError: 'ada'".to_owned(),
        };
        let stream = Row {
            id: "2".to_owned(),
            source: "stream orders batch=10".to_owned(),
            mode: "async_local".to_owned(),
            triggered: 7,
            lag: Some(Duration::from_micros(12_500)),
            ..Row::default()
        };
        Snapshot {
            at: Duration::from_secs(seconds),
            place: "127.0.0.1:6379".to_owned(),
            server: "Valkey 9.1.2".to_owned(),
            uptime_s: 7300,
            sessions: 2,
            bytes_now: 34_000_000,
            bytes_peak: 40_000_000,
            events_pending: 3,
            events_bytes: 1200,
            workers: vec![worker],
            executions: vec![execution("9", "running"), execution("8", "done")],
            registrations: vec![trigger, stream],
            ..Snapshot::default()
        }
    }

    fn screen(view: &View<'_>, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| {
                let drawn = draw(view, frame.area());
                frame.buffer_mut().merge(&drawn);
            })
            .unwrap();
        text(terminal.backend().buffer())
    }

    #[test]
    fn the_whole_screen() {
        let (before, now) = (snapshot(10, 100), snapshot(12, 150));
        let view = View { now: &now, before: Some(&before), notice: None, is_coloured: false };
        let expected = "\
redgrease top  127.0.0.1:6379  Valkey 9.1.2  up 2 h
1 worker (0 died)  34.0 MB, peak 40.0 MB  2 sessions (0 wait)  1 run, 0 wait  3 events wait (1.2 kB)

1 worker
 WORKER       PID  SESSIONS    SERVED       RSS  PEAK RSS  ISOLATION
      1      4711         2        30   17.0 MB   20.0 MB  landlock seccomp

2 executions
             ID  STATE     STARTED BY
              9  running   client
              8  done      client

2 registrations
      ID  FIRES FOR               MODE             RUNS     RUN/s   MEAN ms   LAST ms    LAG ms  FAILED  LAST ERROR
       1  trigger visit           async             150      25.0       2.0       3.0                 1  KeyError: 'ada'
       2  stream orders batch=10  async_local         7       0.0                          12.5       0

q quit  p pause
";
        assert_eq!(screen(&view, 126, full_height(&now)), expected);
    }

    #[test]
    fn without_an_earlier_look_there_are_no_rates() {
        let now = snapshot(12, 150);
        let view = View { now: &now, before: None, notice: Some("no connection"), is_coloured: false };
        let shown = screen(&view, 126, 30);
        assert!(!shown.contains("25.0") && shown.ends_with("no connection\n"), "{shown}");
    }

    #[test]
    fn a_small_screen_says_what_is_left_out_and_no_size_panics() {
        let mut now = snapshot(12, 150);
        now.registrations = vec![now.registrations[0].clone(); 50];
        let view = View { now: &now, before: None, notice: None, is_coloured: true };
        let shown = screen(&view, 126, 24);
        assert!(shown.contains("50 registrations, 42 of them not shown"), "{shown}");
        assert!(shown.ends_with("q quit  p pause\n"), "{shown}");
        for (width, height) in [(1, 1), (10, 3), (3, 40), (500, 2), (80, 10)] {
            screen(&view, width, height);
        }
    }

    #[test]
    fn colours_are_only_used_if_they_are_wanted() {
        let now = snapshot(12, 150);
        let area = Rect::new(0, 0, 126, 24);
        let has_style = |is_coloured| {
            let view = View { now: &now, before: None, notice: None, is_coloured };
            draw(&view, area).content.iter().any(|cell| cell.fg != Color::Reset || !cell.modifier.is_empty())
        };
        assert!(has_style(true) && !has_style(false));
    }
}

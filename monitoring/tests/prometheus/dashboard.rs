//! The queries of the Grafana dashboard, as Grafana would send them with everything selected.

use std::path::Path;

use serde_json::Value;

/// An expression and where it stands.
pub(crate) struct Query {
    pub(crate) place: String,
    pub(crate) expression: String,
}

pub(crate) fn queries() -> Vec<Query> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana/fusebox.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("it is there")).expect("JSON");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let mut queries = Vec::new();
    for panel in list(&dashboard["panels"]) {
        for target in list(&panel["targets"]) {
            let place = format!("{}, {}", text(&panel["title"]), text(&target["refId"]));
            queries.push(Query { place, expression: filled(&text(&target["expr"])) });
        }
    }
    for annotation in list(&dashboard["annotations"]["list"]) {
        let place = format!("annotation {}", text(&annotation["name"]));
        queries.push(Query { place, expression: filled(&text(&annotation["expr"])) });
    }
    for variable in list(&dashboard["templating"]["list"]) {
        // What a variable can be: label_values(selector, label).
        let Some(query) = variable["query"]["query"].as_str() else { continue };
        let inner = query.strip_prefix("label_values(").and_then(|query| query.strip_suffix(')'));
        let (selector, label) = inner.and_then(|inner| inner.rsplit_once(", ")).expect("label_values(selector, label)");
        let expression = format!("count by ({label}) ({})", filled(selector));
        queries.push(Query { place: format!("variable {}", text(&variable["name"])), expression });
    }
    queries
}

/// With its variables filled in. The interval is what Grafana takes for a scrape each second.
fn filled(expression: &str) -> String {
    let mut filled = expression.to_owned();
    for (variable, value) in
        [("$group", ".*"), ("$command", ".*"), ("$instance", ".*"), ("$__rate_interval", "5s"), ("$__interval", "1s")]
    {
        filled = filled.replace(variable, value);
    }
    assert!(!filled.contains('$'), "a variable that nobody fills: {filled}");
    filled
}

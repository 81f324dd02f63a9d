//! CEL where it stands in a configuration: `where`, `for`, and `{{ … }}` within a text.
//!
//! Compiles once, evaluates per host in a context built once per host (building it costs ten times an evaluation). Knows which
//! names an expression may use and says so at compile time; knows no YAML and no objects.
//! The surprise: `"name" in host.groups` is seen through and answered by an index before anything is evaluated.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use cel::common::ast::{Expr, LiteralValue, operators};
use cel::{Context, Env, Program, Value};

use super::diagnostic::{did_you_mean_or, nearest};

/// Longest expression, in bytes. The parser and the evaluation recurse: twice this length, in its worst form, is what a thread's
/// stack of 2 MiB still takes.
pub const EXPRESSION_BYTES_MAX: usize = 1_024;
const HINT: &str = "an expression looks like '\"linux\" in host.groups && host.name.startsWith(\"web\")'";
/// Fields of `host` in an expression.
pub const HOST_FIELDS: [&str; 5] = ["name", "address", "region", "groups", "vars"];

/// Why an expression cannot be used, with advice if there is any.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl ExpressionError {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

/// The functions expressions may use: CEL's own and its string extension. Made once, shared by everything compiled with it.
#[derive(Clone)]
pub struct Language {
    env: Arc<Env>,
}

impl Default for Language {
    fn default() -> Self {
        let mut env = Env::stdlib();
        // Cannot fail on a fresh environment; without it only the extra string functions would be missing.
        let _ = env.add_extension(cel::extensions::strings);
        Self { env: Arc::new(env) }
    }
}

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    program: Program,
    /// Groups of which a host must be a member for the expression to be true.
    required_groups: Vec<String>,
    /// Whether membership in the required groups is all it asks.
    groups_only: bool,
}

impl Language {
    /// Compiles an expression that may use the given variables.
    ///
    /// # Errors
    /// When it is no CEL, uses a variable that is not there, or a field that hosts do not have.
    pub fn compile(&self, source: &str, variables: &[&str]) -> Result<Expression, ExpressionError> {
        if source.len() > EXPRESSION_BYTES_MAX {
            return Err(ExpressionError::new(format!("an expression has at most {EXPRESSION_BYTES_MAX} bytes"), HINT));
        }
        if source.trim().is_empty() {
            return Err(ExpressionError::new("the expression is empty", HINT));
        }
        let program = self.env.compile(source).map_err(|errors| {
            let first = errors.errors.first();
            let message = first.map_or_else(|| "not valid CEL".to_owned(), |error| tidy(&error.msg));
            let at = first.map_or(0, |error| error.pos.1);
            ExpressionError::new(
                format!("the expression `{}` is not valid CEL at its column {at}: {message}", shorten(source)),
                HINT,
            )
        })?;
        check_names(&program.expression().expr, &mut variables.to_vec()).map_err(|mut error| {
            error.message = format!("in the expression `{}`: {}", shorten(source), error.message);
            error
        })?;
        let mut required_groups = Vec::new();
        let groups_only = collect_groups(&program.expression().expr, &mut required_groups);
        Ok(Expression { program, required_groups, groups_only })
    }

    /// A context with nothing in it.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope { context: Context::with_env(Arc::clone(&self.env)) }
    }
}

/// An expression as messages show it.
fn shorten(source: &str) -> String {
    let mut shown: String = source.chars().take(80).collect();
    if shown.len() < source.len() {
        shown.push('…');
    }
    shown
}

/// The parser's messages list every token it would have taken; the first part is what helps.
fn tidy(message: &str) -> String {
    let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
    let message = message.split(" expecting ").next().unwrap_or(message);
    let message = message.replace("mismatched input", "unexpected").replace("extraneous input", "unexpected");
    message.replace("token recognition error at:", "cannot read").replace("'<EOF>'", "end").trim().to_owned()
}

/// Walks the expression: every variable must be known, every field of `host` must exist.
fn check_names<'a>(expr: &'a Expr, variables: &mut Vec<&'a str>) -> Result<(), ExpressionError> {
    match expr {
        Expr::Ident(name) => {
            // Types are names too, as in `type(x) == string`; macros use names beginning with @.
            let builtin = ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "type", "null_type"];
            if name.starts_with('@') || variables.contains(&name.as_str()) || builtin.contains(&name.as_str()) {
                return Ok(());
            }
            let hint = did_you_mean_or(name, variables.iter().copied(), HINT);
            Err(ExpressionError::new(format!("there is no variable `{name}`"), hint))
        }
        Expr::Select(select) => {
            if matches!(&select.operand.expr, Expr::Ident(name) if name == "host")
                && !HOST_FIELDS.contains(&select.field.as_str())
            {
                let hint = nearest(&select.field, HOST_FIELDS).map_or_else(
                    || format!("your own data stands in host.vars.{}", select.field),
                    |near| format!("did you mean `{near}`?"),
                );
                return Err(ExpressionError::new(format!("`host` has no field `{}`", select.field), hint));
            }
            check_names(&select.operand.expr, variables)
        }
        Expr::Call(call) => {
            if let Some(target) = &call.target {
                check_names(&target.expr, variables)?;
            }
            call.args.iter().try_for_each(|argument| check_names(&argument.expr, variables))
        }
        Expr::List(list) => list.elements.iter().try_for_each(|element| check_names(&element.expr, variables)),
        Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
            cel::common::ast::EntryExpr::MapEntry(entry) => {
                check_names(&entry.key.expr, variables)?;
                check_names(&entry.value.expr, variables)
            }
            cel::common::ast::EntryExpr::StructField(field) => check_names(&field.value.expr, variables),
        }),
        Expr::Comprehension(comprehension) => {
            check_names(&comprehension.iter_range.expr, variables)?;
            check_names(&comprehension.accu_init.expr, variables)?;
            let outer = variables.len();
            variables.push(&comprehension.iter_var);
            variables.push(&comprehension.accu_var);
            if let Some(second) = &comprehension.iter_var2 {
                variables.push(second);
            }
            let inside = [&comprehension.loop_cond, &comprehension.loop_step, &comprehension.result]
                .into_iter()
                .try_for_each(|part| check_names(&part.expr, variables));
            variables.truncate(outer);
            inside
        }
        _ => Ok(()),
    }
}

/// Collects the fields that are selected from a variable. False if the variable is used in another way too, so that nobody can
/// tell which fields it takes; what was collected then means nothing.
fn collect_fields(expr: &Expr, variable: &str, fields: &mut BTreeSet<String>) -> bool {
    let is_variable = |expr: &Expr| matches!(expr, Expr::Ident(name) if name == variable);
    match expr {
        Expr::Ident(_) => !is_variable(expr),
        Expr::Select(select) if is_variable(&select.operand.expr) => {
            fields.insert(select.field.clone());
            true
        }
        Expr::Select(select) => collect_fields(&select.operand.expr, variable, fields),
        Expr::Call(call) => {
            let target = call.target.as_ref().is_none_or(|target| collect_fields(&target.expr, variable, fields));
            target && call.args.iter().all(|argument| collect_fields(&argument.expr, variable, fields))
        }
        Expr::List(list) => list.elements.iter().all(|element| collect_fields(&element.expr, variable, fields)),
        Expr::Comprehension(comprehension) => [
            &comprehension.iter_range,
            &comprehension.accu_init,
            &comprehension.loop_cond,
            &comprehension.loop_step,
            &comprehension.result,
        ]
        .into_iter()
        .all(|part| collect_fields(&part.expr, variable, fields)),
        Expr::Map(_) | Expr::Struct(_) => false,
        _ => true,
    }
}

/// Collects `"g" in host.groups` from a conjunction. True if the expression is nothing else.
fn collect_groups(expr: &Expr, groups: &mut Vec<String>) -> bool {
    let Expr::Call(call) = expr else { return false };
    match (call.func_name.as_str(), call.args.as_slice()) {
        (operators::LOGICAL_AND, [left, right]) => {
            let left = collect_groups(&left.expr, groups);
            let right = collect_groups(&right.expr, groups);
            left && right
        }
        (operators::IN, [group, list]) => match (&group.expr, &list.expr) {
            (Expr::Literal(LiteralValue::String(group)), Expr::Select(select))
                if !select.test
                    && select.field == "groups"
                    && matches!(&select.operand.expr, Expr::Ident(name) if name == "host") =>
            {
                groups.push(group.inner().to_owned());
                true
            }
            _ => false,
        },
        _ => false,
    }
}

/// What expressions are evaluated in: a host, later the variables of `for` and the arguments of a command.
pub struct Scope {
    context: Context<'static, 'static>,
}

impl Scope {
    /// Sets a variable to free-form data.
    pub fn set(&mut self, name: &str, value: Value) {
        self.context.add_variable_from_value(name, value);
    }
}

impl Expression {
    /// Groups every host must be in for which this can be true; hosts outside them need no evaluation.
    #[must_use]
    pub fn required_groups(&self) -> &[String] {
        &self.required_groups
    }

    /// Whether membership in [`Self::required_groups`] is the whole expression.
    #[must_use]
    pub fn is_groups_only(&self) -> bool {
        self.groups_only
    }

    /// The value in a scope.
    ///
    /// # Errors
    /// When it uses a value that is not there, or a function that does not take it.
    pub fn evaluate(&self, scope: &Scope) -> Result<Value, ExpressionError> {
        self.program.execute(&scope.context).map_err(|error| match error {
            cel::ExecutionError::NoSuchKey(key) => {
                let hint =
                    "ask first whether it is there, as in has(host.vars.name), or set it in a template".to_owned();
                ExpressionError::new(format!("there is no `{key}`"), hint)
            }
            cel::ExecutionError::UndeclaredReference(name) => {
                ExpressionError::new(format!("there is no function or variable `{name}`"), HINT)
            }
            other => ExpressionError::new(other.to_string().lines().collect::<Vec<_>>().join(" "), HINT),
        })
    }

    /// The value as a yes or no.
    ///
    /// # Errors
    /// As [`Self::evaluate`], and when it is something else than a truth value.
    pub fn is_true(&self, scope: &Scope) -> Result<bool, ExpressionError> {
        match self.evaluate(scope)? {
            Value::Bool(truth) => Ok(truth),
            other => Err(ExpressionError::new(
                format!("the expression gives {}, not true or false", describe(&other)),
                "compare it with something, or ask with has(…)".to_owned(),
            )),
        }
    }
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
        Value::Int(_) | Value::UInt(_) | Value::Float(_) => "a number",
        Value::String(_) => "a text",
        Value::Bool(_) => "a truth value",
        Value::Null => "nothing",
        _ => "a value of another kind",
    }
}

/// The elements of a list, as `for` goes through them.
///
/// # Errors
/// When the value is no list.
pub fn elements(value: Value) -> Result<Arc<Vec<Value>>, ExpressionError> {
    match value {
        Value::List(items) => Ok(items),
        other => Err(ExpressionError::new(
            format!("`for` goes through a list, and this is {}", describe(&other)),
            match other {
                Value::Map(_) => "for a mapping: host.vars.name.map(key, key) gives its keys",
                _ => "make it a list, as in [host.vars.name]",
            },
        )),
    }
}

/// A text with `{{ … }}` in it.
#[derive(Debug)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Expression(Expression),
}

impl Template {
    /// Compiles a text. One without `{{` stays what it is.
    ///
    /// # Errors
    /// When a `{{` is not closed, or what stands between is no expression over the given variables.
    pub fn compile(language: &Language, text: &str, variables: &[&str]) -> Result<Self, ExpressionError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, tail)) = rest.split_once("{{") {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let Some((expression, after)) = tail.split_once("}}") else {
                return Err(ExpressionError::new(format!("the {{{{ in “{text}” is not closed"), "close it with }}"));
            };
            pieces.push(Piece::Expression(language.compile(expression.trim(), variables)?));
            rest = after;
        }
        if !rest.is_empty() || pieces.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self { pieces })
    }

    /// Whether nothing is to be filled in.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        self.pieces.iter().all(|piece| matches!(piece, Piece::Text(_)))
    }

    /// Adds the fields the text takes from a variable. False if that cannot be told.
    pub fn collect_fields(&self, variable: &str, fields: &mut BTreeSet<String>) -> bool {
        self.pieces.iter().all(|piece| match piece {
            Piece::Text(_) => true,
            Piece::Expression(expression) => collect_fields(&expression.program.expression().expr, variable, fields),
        })
    }

    /// The text in a scope.
    ///
    /// # Errors
    /// When an expression cannot be evaluated or gives a list, a mapping or nothing.
    pub fn fill(&self, scope: &Scope) -> Result<String, ExpressionError> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Expression(expression) => match expression.evaluate(scope)? {
                    Value::String(part) => text.push_str(&part),
                    Value::Int(number) => text.push_str(&number.to_string()),
                    Value::UInt(number) => text.push_str(&number.to_string()),
                    Value::Float(number) => text.push_str(&number.to_string()),
                    Value::Bool(truth) => text.push_str(if truth { "true" } else { "false" }),
                    other => {
                        return Err(ExpressionError::new(
                            format!("{{{{ … }}}} gives {}, which is no text", describe(&other)),
                            "choose one element, or join a list: host.vars.names.join(\",\")".to_owned(),
                        ));
                    }
                },
            }
        }
        Ok(text)
    }
}

/// Free-form data as expressions see it. Whole numbers are `int`, so that they can be compared and added to those written in
/// expressions.
#[must_use]
pub fn to_cel(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(truth) => Value::Bool(*truth),
        serde_json::Value::Number(number) => {
            number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::NAN)), Value::Int)
        }
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => Value::List(Arc::new(items.iter().map(to_cel).collect())),
        serde_json::Value::Object(entries) => {
            let entries: HashMap<String, Value> =
                entries.iter().map(|(key, value)| (key.clone(), to_cel(value))).collect();
            Value::from(entries)
        }
    }
}

/// A host as expressions see it.
#[must_use]
pub fn host_value<'a>(
    name: &str,
    address: &str,
    region: &str,
    groups: impl IntoIterator<Item = &'a str>,
    vars: &BTreeMap<String, serde_json::Value>,
) -> Value {
    let vars: HashMap<String, Value> = vars.iter().map(|(key, value)| (key.clone(), to_cel(value))).collect();
    let fields: HashMap<String, Value> = HashMap::from([
        ("name".to_owned(), Value::from(name)),
        ("address".to_owned(), Value::from(address)),
        ("region".to_owned(), Value::from(region)),
        ("groups".to_owned(), Value::List(Arc::new(groups.into_iter().map(Value::from).collect()))),
        ("vars".to_owned(), Value::from(vars)),
    ]);
    Value::from(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(language: &Language) -> Scope {
        let vars = serde_json::json!({"disks": ["/", "/var"], "port": 8080, "db": {"name": "x"}});
        let vars = vars.as_object().unwrap().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let mut scope = language.scope();
        scope.set("host", host_value("web1", "10.0.0.1", "eu", ["linux", "web"], &vars));
        scope
    }

    fn truth(source: &str) -> Result<bool, String> {
        let language = Language::default();
        let expression = language.compile(source, &["host"]).map_err(|error| error.message)?;
        expression.is_true(&scope(&language)).map_err(|error| error.message)
    }

    #[test]
    fn hosts_are_chosen_by_what_they_are() {
        for source in [
            "\"linux\" in host.groups",
            "has(host.vars.disks) && !has(host.vars.missing)",
            "host.name.startsWith(\"web\")",
            "host.name.matches(\"^web[0-9]+$\")",
            "host.vars.port == 8080 && host.vars.port + 1 > 8080",
            "host.vars.disks.exists(d, d == \"/var\")",
            "size(host.vars.disks) == 2",
            "host.region in [\"eu\", \"us\"]",
            "host.vars.db.name.upperAscii() == \"X\"",
            "host.vars.disks.all(d, d.startsWith(\"/\")) ? true : false",
        ] {
            assert_eq!(truth(source), Ok(true), "{source}");
        }
        assert_eq!(truth("\"windows\" in host.groups"), Ok(false));
    }

    #[test]
    fn what_cannot_work_is_said_with_the_reason() {
        for (source, part) in [
            ("1 +", "not valid CEL at its column 4"),
            ("", "empty"),
            ("hots.name == \"x\"", "no variable `hots`"),
            ("host.nam == \"x\"", "no field `nam`"),
            ("host.vars.missing == 1", "there is no `missing`"),
            ("host.vars.disks", "gives a list"),
            ("frobnicate(host.name)", "no function or variable `frobnicate`"),
            ("host.name.matches(\"(\")", "regex"),
            ("host.name + 1 == \"x\"", ""),
        ] {
            let said = truth(source).unwrap_err();
            assert!(said.contains(part), "{source}: {said}");
        }
        let language = Language::default();
        assert!(language.compile(&"1+".repeat(5_000), &[]).is_err());
    }

    #[test]
    fn the_longest_expression_of_any_form_leaves_the_stack_whole() {
        let most = EXPRESSION_BYTES_MAX;
        let forms = [
            ("host.vars", ".a", ""),
            ("host.vars", "[0]", ""),
            ("", "!", "true"),
            ("", "true&&", "true"),
            ("1", "+1", ">0"),
            ("1", "<1", ""),
            ("true", "?true:false", ""),
            ("", "(", "1"),
            ("", "[", "1"),
            ("", "{1:", "1"),
            ("", "size(", "1"),
            ("", "[1].all(a,", "true"),
            ("host.name", ".size()", ""),
        ];
        let language = Language::default();
        for (head, unit, tail) in forms {
            for close in ["", ")", "]", "}"] {
                let room = most - head.len() - tail.len();
                let times = room / (unit.len() + close.len());
                let source = format!("{head}{}{tail}{}", unit.repeat(times), close.repeat(times));
                if let Ok(expression) = language.compile(&source, &["host"]) {
                    // Any answer will do; what counts is that there is one.
                    let _ = expression.evaluate(&scope(&language));
                }
            }
        }
        assert!(language.compile(&" ".repeat(most + 1), &[]).is_err());
    }

    #[test]
    fn texts_are_filled_in() {
        let language = Language::default();
        let fill = |text: &str| {
            let template = Template::compile(&language, text, &["host"]).map_err(|error| error.message)?;
            template.fill(&scope(&language)).map_err(|error| error.message)
        };
        assert_eq!(fill("plain"), Ok("plain".to_owned()));
        assert_eq!(fill(""), Ok(String::new()));
        assert_eq!(fill("{{ host.name }}:{{host.vars.port}}/"), Ok("web1:8080/".to_owned()));
        assert_eq!(fill("{{ host.vars.disks.join(\",\") }}"), Ok("/,/var".to_owned()));
        assert!(fill("{{ host.name").unwrap_err().contains("not closed"));
        assert!(fill("{{ host.vars.disks }}").unwrap_err().contains("gives a list"));
        assert!(fill("{{ nope }}").unwrap_err().contains("no variable `nope`"));
    }

    #[test]
    fn membership_in_groups_needs_no_evaluation() {
        let language = Language::default();
        let groups = |source: &str| {
            let expression = language.compile(source, &["host"]).unwrap();
            (expression.required_groups().to_vec(), expression.is_groups_only())
        };
        assert_eq!(groups("\"a\" in host.groups"), (vec!["a".to_owned()], true));
        assert_eq!(
            groups("\"a\" in host.groups && \"b\" in host.groups"),
            (vec!["a".to_owned(), "b".to_owned()], true)
        );
        assert_eq!(groups("\"a\" in host.groups && host.name == \"x\""), (vec!["a".to_owned()], false));
        assert_eq!(groups("\"a\" in host.groups || host.name == \"x\""), (vec![], false));
        assert_eq!(groups("!(\"a\" in host.groups)"), (vec![], false));
    }
}

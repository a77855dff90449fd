use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

fn raw(text: &str) -> Value {
    Value::Raw(text.as_bytes().to_vec())
}

fn dict(pairs: &[(&str, Value)]) -> Value {
    Value::Dict(pairs.iter().map(|(name, value)| (Value::text(*name), value.clone())).collect())
}

fn get<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    from_value(&value).map_err(|error| error.what().into_owned())
}

/// The problem of a value that does not fit.
fn problem<T: DeserializeOwned + std::fmt::Debug>(value: Value) -> String {
    let text = get::<T>(value).unwrap_err();
    text.strip_prefix("the result is not of the type that was asked for: ").unwrap().to_owned()
}

#[test]
fn numbers_are_numbers_or_texts_of_numbers() {
    for value in [Value::Int(7), Value::text("7"), raw("7"), Value::Bytes(b" 7\n".to_vec()), Value::BigInt("7".into())]
    {
        assert_eq!(get::<u8>(value.clone()), Ok(7), "{value:?}");
        assert_eq!(get::<i128>(value), Ok(7));
    }
    assert_eq!(get::<f64>(raw("1.5")), Ok(1.5));
    assert_eq!(get::<f64>(Value::Int(2)), Ok(2.0));
    assert_eq!(get::<u64>(Value::BigInt(u64::MAX.to_string())), Ok(u64::MAX));
    assert_eq!(problem::<u8>(Value::Int(256)), "invalid value: integer `256`, expected u8");
    assert_eq!(problem::<u8>(raw("many")), "invalid type: string \"many\", expected u8");
    assert_eq!(problem::<i64>(Value::BigInt("9".repeat(30))), "invalid type: a longer integer, expected i64");
    assert_eq!(problem::<String>(Value::Int(7)), "invalid type: integer `7`, expected a string");
}

#[test]
fn texts_and_bytes_are_each_other() {
    assert_eq!(get::<String>(raw("é")), Ok("é".to_owned()));
    assert_eq!(get::<String>(Value::Bytes(b"abc".to_vec())), Ok("abc".to_owned()));
    assert_eq!(get::<Vec<u8>>(Value::Bytes(vec![0xff, 1])), Ok(vec![0xff, 1]));
    assert_eq!(get::<serde_bytes::ByteBuf>(Value::text("a")).unwrap().into_vec(), b"a");
    assert!(problem::<String>(Value::Bytes(vec![0xff])).starts_with("invalid value: byte array"));
}

#[test]
fn containers_are_those_of_rust() {
    let items = vec![Value::Int(1), Value::Int(2)];
    for value in
        [Value::List(items.clone()), Value::Tuple(items.clone()), Value::Set(items.clone()), Value::FrozenSet(items)]
    {
        assert_eq!(get::<Vec<u8>>(value.clone()), Ok(vec![1, 2]));
        assert_eq!(get::<(u8, u8)>(value.clone()), Ok((1, 2)));
        assert!(get::<(u8,)>(value.clone()).is_err());
        assert!(get::<(u8, u8, u8)>(value).is_err());
    }
    assert_eq!(get::<BTreeMap<String, u8>>(dict(&[("a", raw("1"))])), Ok(BTreeMap::from([("a".to_owned(), 1)])));
    let numbers = Value::Dict(vec![(raw("3"), Value::None)]);
    assert_eq!(get::<BTreeMap<u8, Option<u8>>>(numbers), Ok(BTreeMap::from([(3, None)])));
    assert_eq!(get::<(f64, f64)>(Value::Complex(1.0, -2.0)), Ok((1.0, -2.0)));
}

#[test]
fn structs_and_enums_are_read_as_from_other_formats() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Row {
        name: String,
        age: Option<u8>,
    }
    let row = dict(&[("name", raw("Ada")), ("other", Value::Int(1))]);
    assert_eq!(get::<Row>(row), Ok(Row { name: "Ada".into(), age: None }));
    assert_eq!(problem::<Row>(dict(&[("age", Value::Int(3))])), "missing field `name`");

    #[derive(Debug, PartialEq, Deserialize)]
    enum Kind {
        Plain,
        Of(u8),
        Pair(u8, u8),
        Named { x: u8 },
    }
    assert_eq!(get::<Kind>(raw("Plain")), Ok(Kind::Plain));
    assert_eq!(get::<Kind>(dict(&[("Of", Value::Int(1))])), Ok(Kind::Of(1)));
    let pair = Value::List(vec![Value::Int(1), Value::Int(2)]);
    assert_eq!(get::<Kind>(dict(&[("Pair", pair)])), Ok(Kind::Pair(1, 2)));
    assert_eq!(get::<Kind>(dict(&[("Named", dict(&[("x", Value::Int(1))]))])), Ok(Kind::Named { x: 1 }));
    assert_eq!(problem::<Kind>(raw("Of")), "a variant without content");
    assert!(problem::<Kind>(dict(&[("Plain", Value::None)])).starts_with("a variant with content"));
    assert!(problem::<Kind>(raw("Other")).starts_with("unknown variant `Other`"));
    assert!(get::<Kind>(Value::Int(1)).is_err());
}

#[test]
fn objects_of_python_are_refused_with_the_fix() {
    assert!(problem::<String>(Value::Pickle(vec![])).contains("let the last step make plain values"));
    assert_eq!(get::<String>(Value::Opaque("<object>".into())), Ok("<object>".to_owned()));
}

fn all<T: DeserializeOwned>(values: &[Value]) -> Result<T, String> {
    from_values(&values.iter().collect::<Vec<_>>()).map_err(|error| error.what().into_owned())
}

#[test]
fn a_vec_gets_all_results_and_other_types_the_only_one() {
    let (one, two) = ([Value::Int(1)], [Value::Int(1), Value::Int(2)]);
    assert_eq!(
        (all::<Vec<u8>>(&[]), all::<Vec<u8>>(&one), all::<Vec<u8>>(&two)),
        (Ok(vec![]), Ok(vec![1]), Ok(vec![1, 2]))
    );
    assert_eq!((all::<u8>(&one), all::<Option<u8>>(&one), all::<Option<u8>>(&[])), (Ok(1), Ok(Some(1)), Ok(None)));
    assert_eq!(all::<Option<u8>>(&[Value::None]), Ok(None));
    assert!(all::<u8>(&two).unwrap_err().ends_with("one result was asked for, and there are 2: ask for a Vec"));
    assert!(all::<u8>(&[]).unwrap_err().ends_with("and there are 0: ask for a Vec"));
    assert!(all::<Option<u8>>(&two).is_err());
    let pair = [Value::Tuple(two.to_vec())];
    assert_eq!((all::<(u8, u8)>(&pair), all::<Vec<(u8, u8)>>(&pair)), (Ok((1, 2)), Ok(vec![(1, 2)])));
    #[derive(Debug, PartialEq, Deserialize)]
    struct All(Vec<u8>);
    assert_eq!(all::<All>(&two), Ok(All(vec![1, 2])));
}

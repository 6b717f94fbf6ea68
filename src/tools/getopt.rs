//! Parses command lines as GNU `getopt_long` does: options and operands in any order, long names abbreviated.
//! Does not know what an option means, and prints nothing.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Whether an option takes an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// It takes none.
    None,
    /// It needs one.
    Required,
}

/// An option with a long name.
#[derive(Debug)]
pub struct LongOption {
    /// Its name, without the dashes.
    pub name: &'static str,
    /// Whether it takes an argument.
    pub argument: Argument,
    /// Identifies the option in the result: its short name, or a character that no short option uses.
    pub id: char,
}

/// All options of a program.
#[derive(Debug)]
pub struct Options {
    /// The short options; a colon follows each that takes an argument.
    pub short: &'static str,
    /// The long options.
    pub long: &'static [LongOption],
}

/// One option of the command line, or what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub enum Word {
    /// An option, and its argument.
    Option(char, Option<OsString>),
    /// The error message for an invalid option; the rest of its word is not parsed.
    Fault(Vec<u8>),
}

/// Where options are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Anywhere.
    Any,
    /// Before the first operand only, as with `POSIXLY_CORRECT`.
    OptionsFirst,
}

/// Parses the words; the first is the program's name. Returns the options in order, and the operands.
pub fn read(words: &[OsString], options: &Options, order: Order) -> (Vec<Word>, Vec<OsString>) {
    let program = words.first().map(|name| name.as_bytes()).unwrap_or_default();
    let mut rest = words.iter().skip(1);
    let (mut found, mut operands) = (Vec::new(), Vec::new());
    while let Some(word) = rest.next() {
        let bytes = word.as_bytes();
        let read = if bytes == b"--" {
            operands.extend(rest.by_ref().cloned());
            Ok(())
        } else if let Some(long) = bytes.strip_prefix(b"--") {
            read_long(long, options.long, &mut rest).map(|option| found.push(option))
        } else if bytes.len() > 1 && bytes[0] == b'-' {
            read_short(&bytes[1..], options.short, &mut rest, &mut found)
        } else {
            operands.push(word.clone());
            if order == Order::OptionsFirst {
                operands.extend(rest.by_ref().cloned());
            }
            Ok(())
        };
        if let Err(message) = read {
            found.push(Word::Fault([program, b": ", &message, b"\n"].concat()));
            break;
        }
    }
    (found, operands)
}

fn read_long<'a>(
    word: &[u8],
    options: &[LongOption],
    rest: &mut impl Iterator<Item = &'a OsString>,
) -> Result<Word, Vec<u8>> {
    let at = word.iter().position(|&byte| byte == b'=');
    let (name, value) = match at {
        Some(at) => (&word[..at], Some(&word[at + 1..])),
        None => (word, None),
    };
    let option = find_long(name, word, options)?;
    let about = |text: &str| format!("option '--{}' {text}", option.name).into_bytes();
    let argument = match (option.argument, value) {
        (Argument::None, None) => None,
        (Argument::None, Some(_)) => return Err(about("doesn't allow an argument")),
        (Argument::Required, Some(value)) => Some(OsStr::from_bytes(value).to_owned()),
        (Argument::Required, None) => match rest.next() {
            Some(value) => Some(value.clone()),
            None => return Err(about("requires an argument")),
        },
    };
    Ok(Word::Option(option.id, argument))
}

/// The option with this name, or the only one that begins with it.
fn find_long<'o>(
    name: &[u8],
    word: &[u8],
    options: &'o [LongOption],
) -> Result<&'o LongOption, Vec<u8>> {
    if let Some(exact) = options.iter().find(|option| option.name.as_bytes() == name) {
        return Ok(exact);
    }
    let begins = |option: &&LongOption| option.name.as_bytes().starts_with(name);
    let candidates: Vec<&LongOption> = options.iter().filter(begins).collect();
    match candidates[..] {
        [] => Err([b"unrecognized option '--", word, b"'"].concat()),
        [only] => Ok(only),
        _ => {
            let mut message = [b"option '--", word, b"' is ambiguous; possibilities:"].concat();
            for option in candidates {
                message.extend_from_slice(format!(" '--{}'", option.name).as_bytes());
            }
            Err(message)
        }
    }
}

fn read_short<'a>(
    letters: &[u8],
    options: &str,
    rest: &mut impl Iterator<Item = &'a OsString>,
    found: &mut Vec<Word>,
) -> Result<(), Vec<u8>> {
    for (at, &letter) in letters.iter().enumerate() {
        let known = options.bytes().position(|known| known == letter && letter != b':');
        let Some(known) = known else {
            return Err([b"invalid option -- '", &[letter][..], b"'"].concat());
        };
        if options.as_bytes().get(known + 1) != Some(&b':') {
            found.push(Word::Option(char::from(letter), None));
            continue;
        }
        let glued = &letters[at + 1..];
        let argument = match (glued.is_empty(), rest) {
            (false, _) => OsString::from_vec(glued.to_vec()),
            (true, rest) => match rest.next() {
                Some(value) => value.clone(),
                None => {
                    let name = [letter];
                    return Err([b"option requires an argument -- '", &name[..], b"'"].concat());
                }
            },
        };
        found.push(Word::Option(char::from(letter), Some(argument)));
        break;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Options = Options {
        short: "mqt:",
        long: &[
            LongOption { name: "monitor", argument: Argument::None, id: 'm' },
            LongOption { name: "timeout", argument: Argument::Required, id: 't' },
            LongOption { name: "timefmt", argument: Argument::Required, id: 'i' },
        ],
    };

    fn read_line(line: &str, order: Order) -> (Vec<Word>, Vec<OsString>) {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        read(&words, &OPTIONS, order)
    }

    fn fault_of(line: &str) -> String {
        match read_line(line, Order::Any).0.pop() {
            Some(Word::Fault(message)) => String::from_utf8(message).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_and_operands_stand_in_any_order() {
        let (options, operands) = read_line("w a -mqt5 --timeo=6 b -t -7 -- -c", Order::Any);
        let option = |id, value: Option<&str>| Word::Option(id, value.map(OsString::from));
        let expected = [
            option('m', None),
            option('q', None),
            option('t', Some("5")),
            option('t', Some("6")),
            option('t', Some("-7")),
        ];
        assert_eq!(
            (&options[..], operands),
            (&expected[..], vec!["a".into(), "b".into(), "-c".into()])
        );
    }

    #[test]
    fn posix_order_ends_with_the_first_operand() {
        let (options, operands) = read_line("w -m a -q", Order::OptionsFirst);
        assert_eq!((options.len(), operands), (1, vec!["a".into(), "-q".into()]));
    }

    #[test]
    fn faults_are_told_in_the_words_of_the_c_library() {
        assert_eq!(fault_of("w --nothing=1"), "w: unrecognized option '--nothing=1'\n");
        assert_eq!(fault_of("w -mx"), "w: invalid option -- 'x'\n");
        assert_eq!(fault_of("w -t"), "w: option requires an argument -- 't'\n");
        assert_eq!(fault_of("w --timeout"), "w: option '--timeout' requires an argument\n");
        assert_eq!(fault_of("w --mon=1"), "w: option '--monitor' doesn't allow an argument\n");
        let ambiguous = "w: option '--time' is ambiguous; possibilities: '--timeout' '--timefmt'\n";
        assert_eq!(fault_of("w --time"), ambiguous);
    }
}

//! Functions that only the C library has: POSIX regular expressions, `strftime`, error texts, syslog.
//! Keeps no state of its own.

#![expect(unsafe_code, reason = "the C library's functions have no safe interface")]

use std::ffi::CStr;

/// Whether upper and lower case are distinguished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// They are.
    Sensitive,
    /// They are not.
    Insensitive,
}

/// A compiled POSIX extended regular expression.
pub struct ExtendedRegex(Box<libc::regex_t>);

impl ExtendedRegex {
    /// Compiles `pattern`; `None` when it is no valid expression.
    pub fn new(pattern: &CStr, case: Case) -> Option<Self> {
        let flags = match case {
            Case::Sensitive => libc::REG_EXTENDED | libc::REG_NOSUB,
            Case::Insensitive => libc::REG_EXTENDED | libc::REG_NOSUB | libc::REG_ICASE,
        };
        // SAFETY: an all-zero regex_t is a valid value; regcomp fills it.
        let mut compiled: Box<libc::regex_t> = Box::new(unsafe { std::mem::zeroed() });
        // SAFETY: both pointers are valid for the call, and the pattern ends with NUL.
        let result = unsafe { libc::regcomp(&raw mut *compiled, pattern.as_ptr(), flags) };
        (result == 0).then_some(Self(compiled))
    }

    /// True when the expression matches somewhere in `text`.
    pub fn is_match(&self, text: &CStr) -> bool {
        // SAFETY: the expression is compiled; no matches are asked for, so none are written.
        let result =
            unsafe { libc::regexec(&raw const *self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) };
        result == 0
    }
}

impl Drop for ExtendedRegex {
    fn drop(&mut self) {
        // SAFETY: compiled in `new`, and freed only here.
        unsafe { libc::regfree(&raw mut *self.0) };
    }
}

/// Formats the local time `seconds` after the epoch. `None` when the result is empty or longer than 4,094 bytes.
pub fn strftime(format: &CStr, seconds: i64) -> Option<Vec<u8>> {
    let mut text = vec![0u8; 4095];
    // SAFETY: an all-zero tm is a valid value; localtime_r fills it.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call; null means failure.
    if unsafe { libc::localtime_r(&raw const seconds, &raw mut local) }.is_null() {
        return None;
    }
    // SAFETY: the buffer is as long as said, and the format ends with NUL.
    let length = unsafe {
        libc::strftime(text.as_mut_ptr().cast(), text.len(), format.as_ptr(), &raw const local)
    };
    text.truncate(length);
    (length > 0).then_some(text)
}

/// The C library's text for an error number, such as `No such file or directory`.
pub fn error_text(errno: i32) -> String {
    let mut text = [0u8; 256];
    // SAFETY: the buffer is as long as said; the function writes a text that ends with NUL.
    unsafe { libc::strerror_r(errno, text.as_mut_ptr().cast(), text.len()) };
    let text = CStr::from_bytes_until_nul(&text).unwrap_or_default();
    text.to_string_lossy().into_owned()
}

/// Names this program in syslog, with its process id, as a daemon.
pub fn open_syslog(name: &'static CStr) {
    let options = libc::LOG_CONS | libc::LOG_PID | libc::LOG_NDELAY;
    // SAFETY: syslog keeps the pointer; the name lives as long as the program.
    unsafe { libc::openlog(name.as_ptr(), options, libc::LOG_DAEMON) };
}

/// Writes one message of level "info" to syslog.
pub fn write_syslog(message: &CStr) {
    // SAFETY: the format is a constant that takes exactly one text; both end with NUL.
    unsafe { libc::syslog(libc::LOG_INFO, c"%s".as_ptr(), message.as_ptr()) };
}

/// Lets a closed pipe end the program, as with other Unix tools; Rust's runtime ignores SIGPIPE.
pub fn end_on_closed_pipes() {
    // SAFETY: SIG_DFL installs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extended_expression_matches_anywhere() {
        let regex = ExtendedRegex::new(c"\\.(git|svn)/", Case::Sensitive).unwrap();
        assert!(regex.is_match(c"a/.git/config"));
        assert!(!regex.is_match(c"a/.GIT/config"));
        let regex = ExtendedRegex::new(c"\\.(git|svn)/", Case::Insensitive).unwrap();
        assert!(regex.is_match(c"a/.GIT/config"));
        assert!(ExtendedRegex::new(c"(", Case::Sensitive).is_none());
    }

    #[test]
    fn an_empty_time_is_none() {
        assert_eq!(strftime(c"", 0), None);
        assert_eq!(strftime(c"%Y", 86_400 * 366), Some(b"1971".to_vec()));
    }

    #[test]
    fn errors_have_the_texts_of_the_c_library() {
        assert_eq!(error_text(libc::ENOENT), "No such file or directory");
    }
}

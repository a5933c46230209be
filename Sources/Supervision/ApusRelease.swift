/// Which release this is: the one place the number stands. The package, `--version` of every program and the man pages
/// take it from here.
package enum ApusRelease {
    /// MAJOR.MINOR.PATCH.
    package static let version = "0.6.0"
}

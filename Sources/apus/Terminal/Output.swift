import LinuxSystem

/// Takes the place of Swift's `print` in this program. Much of what it shows was written by others (names, remarks,
/// bodies), and must not steer the terminal. Lines and columns stay; every other control character is escaped
/// (`PlainText`).
func print(_ text: String, terminator: String = "\n") {
    Swift.print(PlainText.escaped(text, keepsLines: true), terminator: terminator)
}

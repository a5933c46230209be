/// RocketMQ's rules for the names of topics and groups, and the store's rule for what may become a folder.
enum NameRules {
    /// RocketMQ's character set, as its remarks write it.
    static let pattern = "^[%|a-zA-Z0-9_-]+$"
    /// Bytes of a file name, of any file system.
    static let folderNameMax = 255

    /// RocketMQ's rule for names that are new. Nothing is allocated for a good name.
    static func problem(ofNew name: UnsafeRawBufferPointer, longest: Int) -> NameError.Problem? {
        if name.allSatisfy(isBlank) { return .blank }
        if let index = name.firstIndex(where: { !isAllowed($0) }) { return .illegalByte(name[index]) }
        return name.count > longest ? .tooLong(bytes: name.count, longest: longest) : nil
    }

    /// The rule for names that exist already: one component of a path, visible, without control characters.
    ///
    /// RocketMQ's broker takes names its own clients refuse (`my.group`), and stores it has written hold them.
    static func problem(ofExisting name: UnsafeRawBufferPointer) -> NameError.Problem? {
        if name.allSatisfy(isBlank) { return .blank }
        // "." and ".." lead elsewhere; the store takes other names with a leading dot for hidden files.
        if name[0] == UInt8(ascii: ".") { return .illegalByte(name[0]) }
        if let index = name.firstIndex(where: { $0 < 32 || $0 == 127 || $0 == UInt8(ascii: "/") }) {
            return .illegalByte(name[index])
        }
        if name.count > folderNameMax { return .tooLong(bytes: name.count, longest: folderNameMax) }
        return String(validating: name, as: UTF8.self) == nil ? .notUTF8 : nil
    }

    private static func isBlank(_ byte: UInt8) -> Bool { byte == 32 || (byte >= 9 && byte <= 13) }

    private static func isAllowed(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "a")...UInt8(ascii: "z"):
            true
        case UInt8(ascii: "%"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "|"): true
        default: false
        }
    }
}

/// Calls `body` with the text's UTF-8.
func withBytes<Result>(_ text: String, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
    var text = text
    return text.withUTF8 { body(UnsafeRawBufferPointer($0)) }
}

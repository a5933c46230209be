import MessageModel
import StoreFormat
import Testing

@Suite struct MessagePropertiesTests {
    @Test func propertiesAreFound() {
        func value(_ name: StaticString, _ text: String) -> String? {
            Array(text.utf8).withUnsafeBytes { bytes in
                MessageProperties.value(of: name, in: bytes).map { String(decoding: $0, as: UTF8.self) }
            }
        }
        #expect(value("TAGS", "KEYS\u{1}a b\u{2}TAGS\u{1}t") == "t")
        #expect(value("TAGS", "TAGS\u{1}one\u{2}TAGS\u{1}two\u{2}") == "two")
        #expect(value("TAGS", "TAGS\u{1}\u{2}\u{1}x\u{2}TAGS") == nil)
        #expect(value("TAGS", "xTAGS\u{1}t") == nil && value("TAGS", "") == nil)
        #expect(value("a", "a\u{1}b\u{1}c") == "b\u{1}c")
    }
}

import Foundation
import LinuxSystem
import Testing

@Suite("text from elsewhere") struct PlainTextTests {
    @Test(
        "whatever steers a terminal or forges a line is shown",
        arguments: [
            ("plain Ünïcode 消息", "plain Ünïcode 消息"), ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\u{1B}[31mred\u{7}", "\\u001b[31mred\\u0007"), ("\u{9B}2J", "\\u009b2J"), ("\u{7F}", "\\u007f"),
            ("abc\u{202E}gpj.exe", "abc\\u202egpj.exe"), ("\u{2066}x\u{2069}", "\\u2066x\\u2069"),
            ("\u{2028}\u{2029}\u{85}", "\\u2028\\u2029\\u0085"), ("\0", "\\u0000"), ("e\u{301}", "e\u{301}"),
        ])
    func escapes(_ text: String, _ shown: String) {
        #expect(PlainText.escaped(text) == shown)
        #expect(PlainText.escaped(shown) == shown)
    }

    @Test("no scalar passes that is a control character or turns the writing direction")
    func all() {
        for value in UInt32(0)...0x2FFF {
            guard let scalar = Unicode.Scalar(value) else { continue }
            let category = scalar.properties.generalCategory
            let isBidi = scalar.properties.isBidiControl
            let harmful =
                category == .control || category == .lineSeparator || category == .paragraphSeparator || isBidi
            let shown = PlainText.escaped(String(scalar))
            #expect((shown != String(scalar)) == harmful, "U+\(String(value, radix: 16))")
        }
    }

    @Test("a long text is cut between characters, and says so")
    func bounds() {
        #expect(PlainText.escaped("abcdef", bytesMax: 4) == "abcd… (2 bytes more)")
        #expect(PlainText.escaped("aé", bytesMax: 2) == "a… (2 bytes more)")
        #expect(PlainText.escaped("abcd", bytesMax: 4) == "abcd")
        #expect(PlainText.escaped("a\n\tb\r", keepsLines: true) == "a\n\tb\\r")
    }
}

import FastJSON
import Glibc
import LinuxSystem

/// Lines of fixed columns, described as RocketMQ's tool describes them: `%-16s  %10s`. Every conversion takes one text;
/// a minus aligns it to the left, the number is the least width.
struct Columns {
    private enum Piece {
        case text(String)
        case cell(width: Int, isLeft: Bool)
    }

    private var pieces: [Piece] = []

    init(_ format: String) {
        var characters = format[...]
        var text = ""
        while let character = characters.popFirst() {
            guard character == "%" else {
                text.append(character)
                continue
            }
            if !text.isEmpty { pieces.append(.text(text)) }
            text = ""
            let isLeft = characters.first == "-"
            if isLeft { characters.removeFirst() }
            let digits = characters.prefix { $0.isNumber }
            characters = characters.dropFirst(digits.count + 1)
            pieces.append(.cell(width: Int(digits) ?? 0, isLeft: isLeft))
        }
        if !text.isEmpty { pieces.append(.text(text)) }
    }

    func line(_ cells: String...) -> String { line(cells) }

    func line(_ cells: [String]) -> String {
        var cells = cells.map { PlainText.escaped($0) }[...]
        var line = ""
        for piece in pieces {
            switch piece {
            case .text(let text): line += text
            case .cell(let width, let isLeft):
                let cell = cells.popFirst() ?? ""
                let pad = String(repeating: " ", count: max(0, width - cell.count))
                line += isLeft ? cell + pad : pad + cell
            }
        }
        return line
    }

    func show(_ cells: String...) { print(line(cells)) }
}

/// A number with that many digits after the point.
func fixed(_ value: Double, _ digits: Int) -> String {
    var buffer = [CChar](repeating: 0, count: 64)
    return withVaList([Int32(digits), value]) { arguments in
        let count = vsnprintf(&buffer, buffer.count, "%.*f", arguments)
        return String(decoding: buffer.prefix(Int(max(0, count))).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// At most so many characters.
func front(_ text: String, _ count: Int) -> String { String(text.prefix(count)) }

/// The name of a client's version number (`MQVersion`). From 4.0.0 on every release has a snapshot before it. Ten
/// releases make a minor version, ten minor versions a major one.
func versionName(_ number: Int) -> String {
    let first = 212
    guard number >= first else { return "V3 (\(number))" }
    let steps = number - first
    let name = "V\(4 + steps / 200)_\(steps % 200 / 20)_\(steps % 20 / 2)"
    return steps % 2 == 0 ? "\(name)_SNAPSHOT" : name
}

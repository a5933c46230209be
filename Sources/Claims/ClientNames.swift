/// The names of clients that hold or held claims, by number.
struct ClientNames {
    private var numbers: [String: UInt32] = [:]
    private var names: [UInt32: String] = [:]
    private var lastNumber: UInt32 = 0
    /// With so many names, those without claims are forgotten.
    private(set) var limit = 65_536

    var isFull: Bool { names.count >= limit }

    subscript(number: UInt32) -> String? { names[number] }

    /// The number of a name, given out now if need be. It is 0, an unknown client, when all numbers have been given
    /// out. A number that was given twice could stand for the former name in a journal.
    mutating func number(of name: String) -> UInt32 {
        if let number = numbers[name] { return number }
        guard lastNumber < ClaimFile.entryNumberLimit - 1 else { return ClaimClient.unknown.number }
        lastNumber += 1
        define(lastNumber, name)
        return lastNumber
    }

    /// From a file.
    mutating func define(_ number: UInt32, _ name: String) {
        lastNumber = max(lastNumber, number)
        if let old = names.updateValue(name, forKey: number) { numbers[old] = nil }
        numbers[name] = number
    }

    func forEach(_ body: (UInt32, String) -> Void) {
        for (number, name) in names { body(number, name) }
    }

    /// Forgets all others; the limit is then at least twice what is left.
    mutating func keep(_ used: Set<UInt32>) {
        names = names.filter { used.contains($0.key) }
        numbers = numbers.filter { used.contains($0.value) }
        limit = max(limit, 2 * names.count)
    }
}

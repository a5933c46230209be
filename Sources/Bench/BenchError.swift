/// Why a run could not start or had to end: the cause and, where one is known, the remedy.
package struct BenchError: Error, CustomStringConvertible {
    package let description: String

    package init(_ description: String) {
        self.description = description
    }
}

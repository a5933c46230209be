/// A number of things, as text for people: `1 broker`, `2 brokers`, `0 batches`.
package func counted(_ count: some BinaryInteger, _ noun: String, plural: String? = nil) -> String {
    "\(count) \(count == 1 ? noun : plural ?? noun + "s")"
}

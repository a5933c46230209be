import MessageModel
import TestTools
import Testing

@Suite("arithmetic on foreign numbers gives the nearest value there is")
struct SaturatingTests {
    @Test("at the bounds") func bounds() {
        let sums: [Int64] = [Int64.max +| 1, Int64.min +| -1, Int64.max +| -1]
        #expect(sums == [.max, .min, .max - 1])
        let differences: [Int64] = [Int64.min -| 1, Int64.max -| -1, 0 -| Int64.min, -1 -| Int64.min]
        #expect(differences == [.min, .max, .max, .max])
        let products: [Int32] = [Int32.max *| 2, Int32.max *| -2, Int32.min *| -1, Int32.min *| 1]
        #expect(products == [.max, .min, .max, .min])
        let small: [UInt8] = [200 +| 100, 3 -| 5, 20 *| 20]
        #expect(small == [255, 0, 255])
    }

    @Test("small numbers, all pairs: as exact arithmetic, cut to the type") func allPairs() {
        for left in Int8.min ... .max {
            for right in Int8.min ... .max {
                let (a, b) = (Int(left), Int(right))
                guard left +| right == Int8(clamping: a + b), left -| right == Int8(clamping: a - b),
                    left *| right == Int8(clamping: a * b)
                else {
                    Issue.record("\(left) and \(right)")
                    return
                }
            }
        }
    }
}

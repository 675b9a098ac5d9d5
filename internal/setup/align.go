package setup

// pair is a row of two columns. Lines that both columns have are in one row.
type pair struct{ left, right string }

// align puts two lists side by side. Lines of their longest common subsequence share a
// row.
func align(left, right []string) []pair {
	common := make([][]int, len(left)+1)
	for i := range common {
		common[i] = make([]int, len(right)+1)
	}
	for i := len(left) - 1; i >= 0; i-- {
		for j := len(right) - 1; j >= 0; j-- {
			if left[i] == right[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var rows []pair
	i, j := 0, 0
	for i < len(left) || j < len(right) {
		switch {
		case i < len(left) && j < len(right) && left[i] == right[j]:
			rows = append(rows, pair{left[i], right[j]})
			i, j = i+1, j+1
		case j == len(right) || i < len(left) && common[i+1][j] >= common[i][j+1]:
			rows = append(rows, pair{left: left[i]})
			i++
		default:
			rows = append(rows, pair{right: right[j]})
			j++
		}
	}
	return rows
}
